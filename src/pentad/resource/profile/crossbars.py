"""In-memory computing: a linear layer on crossbars, with noise, converters, stuck cells and writing.

After Shafiee et al., ISAAC (ISCA 2016): weights lie in the cells of crossbars, a vector is applied to
their rows, and the sums of the columns are converted. Ours is a model of the results, not of the
circuit: all noise is one Gaussian at the column sums, set so that noise and conversion together have the
profile's ratio to the signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pentad.errors import Incompatible, Infeasible
from pentad.execution.device import DeviceProfile
from pentad.ranges import in_range

Matrix = NDArray[np.float64]
_NEEDED = (
    *("crossbars", "crossbar_rows", "crossbar_columns", "cell_bits", "adc_bits"),
    *("write_s_per_row", "write_j_per_cell", "noise_snr_db", "fault_rate"),
)
_SPREAD = 4.0
"""Converters span this many standard deviations of a column's sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteCost:
    """What changing cells takes."""

    cells: int
    seconds: float
    joules: float


@dataclass(slots=True, kw_only=True)
class CrossbarLinear:
    """y = x W with the weights in crossbars.

    Args:
        device: an in-memory profile; its extra has the sizes, bits, noise, faults and write costs.
        weight_bits: of a weight; several cells hold one where a cell has fewer.
        seed: of noise and faults.

    Raises:
        Incompatible: the profile is of no such device.
    """

    device: DeviceProfile
    weight_bits: int = 8
    seed: int = 0
    written: WriteCost = field(init=False, default=WriteCost(cells=0, seconds=0.0, joules=0.0))
    """All writing so far."""
    _codes: NDArray[np.int64] | None = field(init=False, default=None)
    _held: Matrix = field(init=False, repr=False)
    _scale: float = field(init=False, default=1.0)
    _draw: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        missing = [name for name in _NEEDED if name not in self.device.extra]
        if missing:
            raise Incompatible(
                f"device {self.device.name!r} has no {missing[0]!r}: it is no crossbar",
                hint="choose a device of pentad profile --list --kind imc",
            )
        in_range("weight_bits", self.weight_bits, least=2, most=16)
        self._draw = np.random.default_rng(self.seed)

    def cells_of(self, rows: int, columns: int) -> int:
        """Cells that a matrix takes."""
        return rows * columns * math.ceil(self.weight_bits / self.device.extra["cell_bits"])

    def write(self, weights: Matrix) -> WriteCost:
        """Programs the weights and returns what that took: cells that keep their value cost nothing.

        Rows are written one after another within a crossbar and at once in all of them.

        Raises:
            Infeasible: more cells than the device has.
        """
        extra, (rows, columns) = self.device.extra, weights.shape
        room = extra["crossbars"] * extra["crossbar_rows"] * extra["crossbar_columns"]
        needed = self.cells_of(rows, columns)
        if needed > room:
            raise Infeasible(
                f"a {rows} x {columns} matrix takes {needed} cells, {self.device.name!r} has {room:.0f}",
                hint="split the matrix over several devices",
                param="weights",
            )
        top = 2 ** (self.weight_bits - 1) - 1
        self._scale = float(np.abs(weights).max()) / top or 1.0
        codes = np.rint(weights / self._scale).astype(np.int64)
        before = self._codes
        changed = codes != before if before is not None and before.shape == codes.shape else codes == codes
        per_weight = math.ceil(self.weight_bits / extra["cell_bits"])
        cells = int(changed.sum()) * per_weight
        in_a_crossbar = min(extra["crossbar_rows"], float(changed.any(axis=1).sum()))
        cost = WriteCost(
            cells=cells,
            seconds=in_a_crossbar * extra["write_s_per_row"],
            joules=cells * extra["write_j_per_cell"],
        )
        self.written = WriteCost(
            cells=self.written.cells + cost.cells,
            seconds=self.written.seconds + cost.seconds,
            joules=self.written.joules + cost.joules,
        )
        self._codes = codes
        stuck = np.random.default_rng(self.seed + 1).random(codes.shape) < extra["fault_rate"]
        self._held = np.where(stuck, 0, codes) * self._scale
        return cost

    def multiply(self, inputs: Matrix) -> Matrix:
        """Products of rows with the weights, as the converters give them.

        Raises ValueError before anything was written.
        """
        if self._codes is None:
            raise ValueError("write the weights first")
        exact = inputs @ self._held
        power = exact.var()
        if power == 0:
            return exact
        step = 2 * _SPREAD * math.sqrt(power) / 2 ** self.device.extra["adc_bits"]
        allowed = power / 10 ** (self.device.extra["noise_snr_db"] / 10)
        # Rounding has its own noise: only what is left of the set ratio is added.
        noise = self._draw.normal(0.0, math.sqrt(max(0.0, allowed - step**2 / 12)), exact.shape)
        return np.asarray(np.rint((exact + noise) / step) * step)
