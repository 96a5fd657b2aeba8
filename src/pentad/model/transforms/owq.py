"""OWQ: the few columns that rounding would hurt most stay whole, the others are rounded around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.quantize import encode
from pentad.execution.rounding.group_grid import GroupGrid
from pentad.execution.weights import StoredTensor
from pentad.model.transforms.base import Unit
from pentad.model.transforms.compensation import round_compensated, round_plain
from pentad.model.transforms.hessian import inverse_factor
from pentad.model.transforms.quantizing import CompensatedQuantizer, importance


@dataclass(frozen=True, slots=True, kw_only=True)
class OWQ(CompensatedQuantizer):
    """Keeps the columns of largest second moment times rounding error in F16 and rounds the rest by GPTQ.

    A row has one scale. The columns that stay take on what all others lost. Numbers are stored in F16,
    since no file format mixes widths within a row.

    Exactness: lossy; the metric is perplexity. Cost: as gptq, and one more rounding of each matrix.

    Source: Lee et al., "OWQ: Outlier-Aware Weight Quantization", AAAI'24, section 3. No difference but
    the searched scales (`search`).
    """

    bits: int = 3
    kept: float = 0.01
    """Share of the columns that stay whole, 0 to below 1."""

    name: ClassVar[str] = "owq"

    def __post_init__(self) -> None:
        CompensatedQuantizer.__post_init__(self)
        if not self.bits:
            raise InvalidRequest("owq has no file format that mixes widths", hint="set bits", param="bits")
        if not 0 <= self.kept < 1:
            raise InvalidRequest(f"kept is {self.kept}, must be 0 to below 1", param="kept")

    def stored_bits(self, columns: int) -> float:
        """Bits of a weight in rows of so many, scales and whole columns included."""
        whole = self.whole(columns)
        rest = GroupGrid(width=self.bits, elements=columns - whole, numbers=self.numbers).bits
        return (whole * 16 + (columns - whole) * rest) / columns

    def whole(self, columns: int) -> int:
        """How many columns stay whole."""
        return round(self.kept * columns)

    def matrix(self, unit: Unit, name: str) -> StoredTensor:
        values, tap = unit.values(name), unit.taps[name]
        assert tap.gram is not None, "its needs are declared"
        columns = values.shape[1]
        weights, whole = importance(tap), self.whole(values.shape[1])
        row = GroupGrid(width=self.bits, elements=columns, numbers=self.numbers)
        _, plain = round_plain(row, values, weights, search=self.search)
        lost = np.square(plain - values).sum(axis=0) * weights
        order = np.argsort(lost, kind="stable")  # those that stay last, where errors can still reach them
        order[: columns - whole].sort()
        grid = GroupGrid(width=self.bits, elements=columns - whole, numbers=self.numbers)
        factor = inverse_factor(tap.gram[np.ix_(order, order)], self.damping)
        _, found = round_compensated(
            grid, values[:, order], factor, weights[order], search=self.search, kept=whole
        )
        result = np.empty_like(found)
        result[:, order] = found
        return encode(name, result, "F16")
