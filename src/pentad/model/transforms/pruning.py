"""What pruning by scores has in common: the lowest scores of each matrix become zeros."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.taps import Tap
from pentad.execution.weights import TensorFormat
from pentad.model.transforms.base import MatrixTransform
from pentad.types import Exactness


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPruning(MatrixTransform):
    """Sets the weights of lowest score to zero. A subclass writes `score`.

    Ties go to the lower column, so equal matrices are pruned alike.
    """

    sparsity: float = 0.5
    """Share of each matrix that becomes zero, 0 to below 1; of no meaning with a `pattern`."""
    pattern: Literal["", "2:4", "4:8"] = ""
    """Keep so many of every so many neighbours in a row; empty prunes wherever scores are lowest."""
    format: TensorFormat = "Q8_0"
    """Format that pruned matrices are written in; zeros stay zeros in it."""

    exactness: ClassVar[Exactness] = "lossy"
    by_row: ClassVar[bool] = True
    """Whether scores are compared within a row, or over the whole matrix."""

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InvalidRequest(
                f"sparsity is {self.sparsity}, must be 0 to below 1",
                hint="sparsity=0.5 makes half of each matrix zero",
                param="sparsity",
            )
        if self.format == "Q4_1":
            raise InvalidRequest("Q4_1 does not keep zeros", hint="choose Q8_0, Q4_0 or F16", param="format")

    def score(self, values: Floats, tap: Tap | None) -> Floats:
        """What each weight is worth: [out, in]."""
        raise NotImplementedError

    def matrix(self, values: Floats, tap: Tap | None) -> Floats:
        pruned: Floats = np.where(self._doomed(self.score(values, tap)), np.float32(0), values)
        return pruned

    def _doomed(self, scores: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """True where a weight goes."""
        rows, columns = scores.shape
        kept, group = (int(n) for n in self.pattern.split(":")) if self.pattern else (0, 0)
        if group and columns % group == 0:
            groups, count = scores.reshape(-1, group), group - kept
        else:
            groups = scores if self.by_row else scores.reshape(1, -1)
            count = int(self.sparsity * groups.shape[1])
        lowest = np.argsort(groups, axis=1, kind="stable")[:, :count]
        doomed = np.zeros(groups.shape, dtype=np.bool_)
        np.put_along_axis(doomed, lowest, True, axis=1)
        return doomed.reshape(rows, columns)
