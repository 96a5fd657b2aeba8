"""Grids of papers: so many bits and one scale for a group of a row, whatever files can hold.

Their numbers are stored whole in F16 and lie on the grid, so that every runner computes what packed
codes would give, and the bits are what codes and scales would take. A file of them is no smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.rounding.grid import Scales, spread, whole_numbers
from pentad.execution.rounding.packing import as_half, half_bytes
from pentad.execution.rounding.search import symmetric, with_offset
from pentad.execution.weights import TensorFormat

Numbers = Literal["integers", "symmetric", "floats"]
"""Integers with a scale and a least number; integers with a scale; floats with a scale."""
EXPONENT_BITS: Final = {3: 2, 4: 2, 6: 3, 8: 4}
"""Of floats of so many bits: E2M0, E2M1, E3M2, E4M3."""


@dataclass(frozen=True, kw_only=True)
class GroupGrid:
    """Numbers of `bits` bits with a scale in fp16 for each `elements` of a row."""

    width: int
    """Bits of a code."""
    elements: int
    numbers: Numbers = "integers"

    @property
    def format(self) -> TensorFormat:
        return "F16"

    @property
    def parts(self) -> int:
        return 1

    @property
    def levels(self) -> Floats:
        if self.numbers == "integers":
            return whole_numbers(0, (1 << self.width) - 1)
        if self.numbers == "symmetric":
            half = 1 << (self.width - 1)
            return whole_numbers(-half, half - 1)
        return float_levels(self.width)

    @property
    def bits(self) -> float:
        return self.width + (32 if self.numbers == "integers" else 16) / self.elements

    def fit(self, values: Floats, weights: Floats | None, *, search: bool) -> Scales:
        if self.numbers == "integers":
            return self.given(*with_offset(self.levels, values, weights, search=search, below_zero=False))
        return Scales(scale=as_half(symmetric(self.levels, values, weights, search=search)))

    def given(self, scale: Floats, low: Floats) -> Scales:
        """These scales and least numbers [n, 1], of integers that have both."""
        assert self.numbers == "integers", "asked of integers with a least number alone"
        return Scales(scale=as_half(scale), offset=as_half(low))

    def pack(self, index: Bytes, scales: Scales) -> Bytes:
        numbers = self.levels[index] * spread(scales.scale, self.elements)
        if scales.offset is not None:
            numbers = numbers + spread(scales.offset, self.elements)
        return half_bytes(numbers)


def float_levels(width: int) -> Floats:
    """All numbers of a float of so many bits, in order, none of them infinite.

    Source: OCP Microscaling Formats v1.0, section 5.3 (E2M1, E3M2); E4M3 here keeps its largest code.
    """
    exponent_bits = EXPONENT_BITS[width]
    mantissa_bits = width - 1 - exponent_bits
    code = np.arange(1 << (width - 1))
    exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
    bias = (1 << (exponent_bits - 1)) - 1
    normal = (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)
    small = mantissa / (1 << mantissa_bits) * 2.0 ** (1 - bias)
    size = np.where(exponent == 0, small, normal)
    return np.unique(np.concatenate((-size, size))).astype(np.float32)
