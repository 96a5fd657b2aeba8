"""MoFQ: each matrix in integers or in floats of the same width, whichever fits it better."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.rounding.grid import Grid
from pentad.execution.rounding.group_grid import EXPONENT_BITS, GroupGrid, Numbers
from pentad.execution.weights import TensorFormat
from pentad.model.transforms.base import Unit
from pentad.model.transforms.compensation import round_plain
from pentad.model.transforms.quantizing import Quantizer, dividing, importance

_log = logging.getLogger(__name__)
_KINDS: Final[tuple[Numbers, ...]] = ("symmetric", "floats")


@dataclass(frozen=True, slots=True, kw_only=True)
class MoFQ(Quantizer):
    """Rounds each matrix onto integers or onto floats of equal width, by the lower error of its numbers.

    Which it was stands in the log. Exactness: lossy; the metric is perplexity. Cost: two roundings of
    each matrix, and two passes of the calibration text through each layer.

    Source: Zhang et al., "Integer or Floating Point? New Outlooks for Low-Bit Quantization on Large
    Language Models", 2023, section 4.2 (W-only form). Our difference: errors count by what enters
    their column.
    """

    bits: int = 4
    numbers: Numbers = "symmetric"

    name: ClassVar[str] = "mofq"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        Quantizer.__post_init__(self)
        if self.bits not in EXPONENT_BITS:
            known = ", ".join(map(str, EXPONENT_BITS))
            raise InvalidRequest(f"bits is {self.bits}; floats have {known}", param="bits")

    def grid(self, unit: Unit, name: str, columns: int) -> Grid | TensorFormat:
        found = self.kind(unit, name)
        _log.info("%s: %s", name, found)
        return GroupGrid(width=self.bits, elements=dividing(self.group, columns), numbers=found)

    def kind(self, unit: Unit, name: str) -> Numbers:
        """What fits the matrix better."""
        values, weights = unit.values(name), importance(unit.taps[name])
        errors = []
        for kind in _KINDS:
            elements = dividing(self.group, values.shape[1])
            grid = GroupGrid(width=self.bits, elements=elements, numbers=kind)
            _, found = round_plain(grid, values, weights, search=self.search)
            errors.append(float((np.square(found - values) * weights).sum()))
        return _KINDS[int(errors[1] < errors[0])]
