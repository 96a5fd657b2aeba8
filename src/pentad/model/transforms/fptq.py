"""FPTQ: four-bit weights with eight-bit inputs, each matrix's rounded as their range asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.execution.input_rounding import InputRule, one_range
from pentad.execution.taps import Tap
from pentad.execution.weights import TensorFormat
from pentad.model.transforms.base import Unit
from pentad.model.transforms.equivalence import scale, sites
from pentad.model.transforms.input_quantizing import InputQuantizer, largest, ranges
from pentad.model.transforms.quantizing import Moved

Way = Literal["static", "equalised", "token"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FPTQ(InputQuantizer):
    """Chooses for each matrix how its inputs are rounded: by one scale, equalised, or token by token.

    One fixed scale serves where the range is small, or moderate and equalised; a large one needs a scale
    for each token.

    Exactness: lossy; the metric is perplexity. Cost: two passes of the calibration text, and the
    rounding.

    Source: Li et al., "FPTQ: Fine-grained Post-Training Quantization for Large Language Models",
    2023, section 4.2: factors of equalisation are max|X| / log2(2 + max|X|). Our difference:
    ranges count in units of the matrix's mean input, since models scale their streams differently.
    """

    format: TensorFormat = "Q4_0"
    small: float = 15.0
    """Largest input, in means, up to which one fixed scale serves."""
    large: float = 150.0
    """Largest input, in means, from which on each token has its own scale."""

    name: ClassVar[str] = "fptq"

    def way(self, tap: Tap) -> Way:
        """How what enters a matrix is rounded."""
        mean = float(tap.absolute_sum.mean()) / tap.rows
        reach = float(largest(tap).max()) / max(mean, 1e-20)
        if reach <= self.small:
            return "static"
        return "equalised" if reach <= self.large else "token"

    def moved(self, unit: Unit) -> Moved:
        moved = Moved()
        for site in sites(unit):
            tap = moved.taps.get(site.readers[0]) or site.tap(unit)
            if self.way(tap) == "equalised":
                scale(site, unit, moved, equalising(site.of_channels(largest(tap), largest=True)))
        return moved

    def rule(self, unit: Unit, name: str, tap: Tap) -> InputRule:
        del unit, name
        if self.way(tap) == "token":
            return InputRule(bits=self.input_bits)
        return one_range(*ranges(tap), self.input_bits)


def equalising(reach: Floats) -> Floats:
    """The factors of channels that reach so far."""
    unit = np.float32(np.median(reach))
    found: Floats = (reach / unit) / np.log2(2 + reach / unit)
    return found.astype(np.float32)
