"""What methods that set single weights to zero have in common: how many, in which pattern, which ones."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.taps import Tap
from pentad.execution.weights import TensorFormat
from pentad.model.transforms.base import MatrixTransform
from pentad.types import Exactness

Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pruning(MatrixTransform):
    """How sparse matrices become. A subclass writes `matrix`."""

    sparsity: float = 0.5
    """Share of each matrix that becomes zero, 0 to below 1; of no meaning with a `pattern`."""
    pattern: Literal["", "2:4", "4:8"] = ""
    """Keep so many of every so many neighbours in a row; empty prunes wherever scores are lowest."""
    format: TensorFormat = "Q8_0"
    """Format that pruned matrices are written in; zeros stay zeros in it."""

    exactness: ClassVar[Exactness] = "lossy"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InvalidRequest(
                f"sparsity is {self.sparsity}, must be 0 to below 1",
                hint="sparsity=0.5 makes half of each matrix zero",
                param="sparsity",
            )
        if self.format == "Q4_1":
            raise InvalidRequest("Q4_1 does not keep zeros", hint="choose Q8_0, Q4_0 or F16", param="format")

    def group(self, columns: int) -> tuple[int, int]:
        """Of how many neighbours how many go; (0, 0) where no pattern applies to rows of that length."""
        kept, group = (int(n) for n in self.pattern.split(":")) if self.pattern else (0, 0)
        return (group, group - kept) if group and columns % group == 0 else (0, 0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPruning(Pruning):
    """Sets the weights of lowest score to zero. A subclass writes `score`.

    Ties go to the lower column, so equal matrices are pruned alike.
    """

    by_row: ClassVar[bool] = True
    """Whether scores are compared within a row, or over the whole matrix."""

    def score(self, values: Floats, tap: Tap | None) -> Floats:
        """What each weight is worth: [out, in]."""
        raise NotImplementedError

    def matrix(self, values: Floats, tap: Tap | None) -> Floats:
        pruned: Floats = np.where(self._doomed(self.score(values, tap)), np.float32(0), values)
        return pruned

    def _doomed(self, scores: Floats) -> Mask:
        """True where a weight goes."""
        group, count = self.group(scores.shape[1])
        if group:
            return lowest(scores.reshape(-1, group), count).reshape(scores.shape)
        groups = scores if self.by_row else scores.reshape(1, -1)
        return lowest(groups, int(self.sparsity * groups.shape[1])).reshape(scores.shape)


def lowest(scores: Floats, count: int) -> Mask:
    """True at the `count` lowest scores of each row; ties go to the lower column."""
    doomed = np.zeros(scores.shape, dtype=np.bool_)
    np.put_along_axis(doomed, np.argsort(scores, axis=1, kind="stable")[:, :count], True, axis=1)
    return doomed
