"""What methods of quantization have in common: a grid for each matrix, and rounding onto it.

A method may first move numbers between a layer's tensors so that it computes the same (`moved`), then
each matrix is rounded: every number for itself, or later columns making up for earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.quantize import encode, writable
from pentad.execution.rounding.grid import Grid
from pentad.execution.rounding.group_grid import EXPONENT_BITS, GroupGrid, Numbers
from pentad.execution.rounding.table import GRIDS, fitting
from pentad.execution.spec import ModelSpec
from pentad.execution.taps import Tap
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.transforms.base import Unit, written
from pentad.model.transforms.compensation import round_compensated, round_plain
from pentad.model.transforms.hessian import inverse_factor
from pentad.types import Exactness


@dataclass(slots=True)
class Moved:
    """Tensors of a unit in values that compute the same together, and what enters matrices then."""

    values: dict[str, Floats] = field(default_factory=dict)
    taps: dict[str, Tap] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """Writes every matrix of the layers in fewer bits; a subclass says what is done before and how."""

    format: TensorFormat = "Q4_0"
    """Format of the matrices, of those that `rounding/table.py` and `quantize.py` write; rows that do not
    divide into blocks of 256 get the format of blocks of 32 with at least its bits."""
    bits: int = 0
    """Bits of a code on a grid of `group` and `numbers`, in the place of `format`; the numbers are stored in
    F16, so that a method can be judged at widths that no file format has. 0: `format` holds."""
    group: int = 128
    """Numbers that share a scale where `bits` is set; halved until rows divide into groups; 0: a
    whole row."""
    numbers: Numbers = "integers"
    """What codes stand for where `bits` is set: integers from a least number on, symmetric ones, floats."""
    search: bool = True
    """Whether a block gets the scales of least weighted error, not those that reach its largest number."""

    exactness: ClassVar[Exactness] = "lossy"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        widths = tuple(EXPONENT_BITS) if self.numbers == "floats" else tuple(range(2, 9))
        if self.bits and self.bits not in widths:
            raise InvalidRequest(
                f"bits is {self.bits}; {self.numbers} have {', '.join(map(str, widths))}",
                hint="0 takes the bits of `format`",
                param="bits",
            )
        if self.group < 0:
            raise InvalidRequest(f"group is {self.group}, must be at least 0", param="group")
        if not self.bits and self.format not in (*GRIDS, *writable()):
            known = dict.fromkeys((*writable(), *GRIDS))
            raise InvalidRequest(
                f"matrices cannot be written as {self.format!r}",
                hint=f"choose one of {', '.join(known)}",
                param="format",
            )

    def target(self, spec: ModelSpec) -> ModelSpec:
        return spec

    def rewrite(self, unit: Unit) -> Mapping[str, StoredTensor]:
        moved = self.moved(unit) if unit.layer is not None else Moved()
        now = unit.changed(moved.values, moved.taps)
        found = {name: encode(name, values, "F32") for name, values in moved.values.items()}
        return found | {name: self.matrix(now, name) for name in now.matrices()}

    def moved(self, unit: Unit) -> Moved:
        """The layer in an equivalent form that rounds better."""
        del unit
        return Moved()

    def matrix(self, unit: Unit, name: str) -> StoredTensor:
        """A matrix in its new format."""
        values = unit.values(name)
        grid = self.grid(unit, name, values.shape[-1])
        if isinstance(grid, str):
            return written(name, values, grid)
        flat = values.reshape(-1, values.shape[-1])
        data, _ = self.rounded(grid, flat, unit.taps.get(name))
        return StoredTensor(name=name, format=grid.format, shape=values.shape, data=data.reshape(-1))

    def grid(self, unit: Unit, name: str, columns: int) -> Grid | TensorFormat:
        """What the matrix is rounded onto; a format's name where its numbers are written as they are."""
        del unit, name
        return self.chosen_grid(columns)

    def chosen_grid(self, columns: int) -> Grid | TensorFormat:
        """What the options say for rows of so many numbers."""
        if self.bits:
            return GroupGrid(width=self.bits, elements=dividing(self.group, columns), numbers=self.numbers)
        format = fitting(self.format, columns)
        return GRIDS.get(format, format)

    def rounded(self, grid: Grid, values: Floats, tap: Tap | None) -> tuple[Bytes, Floats]:
        """The blocks of a matrix [out, in] and their values."""
        weights = None if tap is None else importance(tap)
        return round_plain(grid, values, weights, search=self.search)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensatedQuantizer(Quantizer):
    """A method whose rounding can make up for its errors; it needs second moments."""

    compensate: bool = True
    """Whether later columns make up for what earlier ones lost (GPTQ)."""
    damping: float = 0.01
    """Share of the mean second moment that is added to each column's, so that the inverse exists."""

    needs: ClassVar[frozenset[str]] = frozenset({"calibration", "second-moments"})

    def rounded(self, grid: Grid, values: Floats, tap: Tap | None) -> tuple[Bytes, Floats]:
        assert tap is not None and tap.gram is not None, "its needs are declared"  # noqa: PT018
        if not self.compensate:
            return round_plain(grid, values, importance(tap), search=self.search)
        factor = inverse_factor(tap.gram, self.damping)
        return round_compensated(grid, values, factor, importance(tap), search=self.search)


def importance(tap: Tap) -> Floats:
    """What the squared error of each column counts: its mean square, and never quite nothing."""
    mean = tap.square_sum / np.float32(tap.rows)
    found: Floats = mean + np.float32(1e-6) * mean.mean() + np.float32(1e-20)
    return found


def dividing(group: int, columns: int) -> int:
    """The group halved until rows divide into it, the whole row for 0."""
    group = group or columns
    while columns % group:
        group = group // 2 or 1
    return group
