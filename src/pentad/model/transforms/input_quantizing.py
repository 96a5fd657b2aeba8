"""What methods have in common that round what enters a matrix as well as the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.input_rounding import InputRule, one_range
from pentad.execution.taps import Tap
from pentad.model.transforms.base import Unit
from pentad.model.transforms.quantizing import CompensatedQuantizer

Scope = Literal["tensor", "token"]
"""What numbers share a scale: all that ever enter a matrix, or those of a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputQuantizer(CompensatedQuantizer):
    """A method that makes activations easier to round.

    What is written is weights; how inputs are rounded (`inputs`) is for trials on the PyTorch reference,
    since runners round activations in their own way, whatever a model's file says.
    """

    input_bits: int = 8
    """Bits of what enters a matrix, in trials; 0: it is not rounded."""
    scope: Scope = "tensor"
    """What numbers share a scale."""

    def __post_init__(self) -> None:
        CompensatedQuantizer.__post_init__(self)
        if self.input_bits and not 2 <= self.input_bits <= 8:
            raise InvalidRequest(
                f"input_bits is {self.input_bits}, must be 2 to 8",
                hint="0 leaves inputs as they are",
                param="input_bits",
            )

    def inputs(self, unit: Unit) -> dict[str, InputRule]:
        """Rules for the matrices of a layer whose tensors and taps have been moved."""
        if not self.input_bits:
            return {}
        return {name: self.rule(unit, name, unit.taps[name]) for name in unit.matrices() if name in unit.taps}

    def rule(self, unit: Unit, name: str, tap: Tap) -> InputRule:
        """How what enters one matrix is rounded."""
        del unit, name
        if self.scope == "token":
            return InputRule(bits=self.input_bits)
        low, high = ranges(tap)
        return one_range(low, high, self.input_bits)


def ranges(tap: Tap) -> tuple[Floats, Floats]:
    """The least and largest number of each column."""
    assert tap.low is not None and tap.high is not None, "walks count them"  # noqa: PT018
    return tap.low, tap.high


def largest(tap: Tap) -> Floats:
    """The largest magnitude of each column, and never quite nothing."""
    low, high = ranges(tap)
    found: Floats = np.maximum(np.maximum(-low, high), 0)
    return np.maximum(found, np.float32(1e-5) * max(float(found.max()), 1e-20))
