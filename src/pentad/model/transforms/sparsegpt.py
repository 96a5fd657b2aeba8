"""SparseGPT: weights go column by column, and those behind them make up for what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.taps import Tap
from pentad.model.transforms.hessian import inverse_factor
from pentad.model.transforms.pruning import Mask, Pruning, lowest

_BLOCK: Final = 128
"""Columns whose weights are chosen together, and whose errors reach the rest of the matrix together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseGPT(Pruning):
    """Prunes each matrix so that what it gives changes least, the weights that stay making up for the others.

    Exactness: lossy; the metric is perplexity. Cost: two passes of the calibration text through each
    layer, a Cholesky factor of every kind of input, and one sweep over the columns of each matrix.

    Source: Frantar and Alistarh, "SparseGPT", ICML'23, algorithm 1. No difference.
    """

    damping: float = 0.01
    """Share of the inputs' mean square that is added to all of them, above 0 to 1."""

    name: ClassVar[str] = "sparsegpt"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "second-moments"})

    def __post_init__(self) -> None:
        Pruning.__post_init__(self)
        if not 0 < self.damping <= 1:
            raise InvalidRequest(
                f"damping is {self.damping}, must be above 0 to 1", hint="0.01 is usual", param="damping"
            )

    def importance(self, gram: Floats, factor: Floats) -> Floats:
        """What the square of a weight of each column counts when weights are chosen: [in]."""
        del gram
        return np.asarray(1 / np.square(np.diagonal(factor)), np.float32)

    def matrix(self, values: Floats, tap: Tap | None) -> Floats:
        assert tap is not None, "its needs are declared"
        assert tap.gram is not None, "its needs are declared"
        factor = inverse_factor(tap.gram, self.damping)
        importance = self.importance(tap.gram, factor)
        left, columns = values.copy(), values.shape[1]
        for start in range(0, columns, _BLOCK):
            part = slice(start, min(start + _BLOCK, columns))
            errors = self._block(left[:, part], factor[part, part], importance[part], self.group(columns))
            left[:, part.stop :] -= errors @ factor[part, part.stop :]
        return left

    def _block(self, block: Floats, factor: Floats, importance: Floats, pattern: tuple[int, int]) -> Floats:
        """Prunes the columns [out, B] of a block in place; what later columns are to make up for [out, B]."""
        errors = np.empty_like(block)
        group, count = pattern
        doomed = np.zeros(block.shape, np.bool_) if group else self._chosen(block, importance)
        for i in range(block.shape[1]):
            if group and i % group == 0:  # chosen when reached, for the weights as they then are
                part = slice(i, i + group)
                doomed[:, part] = lowest(np.square(block[:, part]) * importance[part], count)
            errors[:, i] = np.where(doomed[:, i], block[:, i], np.float32(0)) / factor[i, i]
            block[:, i + 1 :] -= np.outer(errors[:, i], factor[i, i + 1 :])
            block[doomed[:, i], i] = 0
        return errors

    def _chosen(self, block: Floats, importance: Floats) -> Mask:
        """Those of a whole block that cost least."""
        costs = (np.square(block) * importance).reshape(1, -1)
        return lowest(costs, int(self.sparsity * costs.size)).reshape(block.shape)
