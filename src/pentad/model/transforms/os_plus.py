"""Outlier Suppression+: channels are centred, and those that reach farthest are shrunk into the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.execution.input_rounding import InputRule
from pentad.execution.taps import Tap
from pentad.execution.weights import TensorFormat
from pentad.model.transforms.base import Unit
from pentad.model.transforms.compensation import round_plain
from pentad.model.transforms.equivalence import Site, scale, sites
from pentad.model.transforms.hessian import output_error
from pentad.model.transforms.input_quantizing import InputQuantizer, ranges
from pentad.model.transforms.quantizing import Moved, importance

_ROWS = 64
"""Of each matrix that a threshold is tried on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierSuppressionPlus(InputQuantizer):
    """Takes each channel's middle off, then shrinks those that still reach beyond a threshold to it.

    The threshold of a site is the one of least error of what its matrices give, of weights and inputs
    together. The middles stand in the rule of the inputs (`offset`), and the shift that they make
    in what a matrix gives is exact; models whose norms have no shift have nowhere else to keep them.

    Exactness: lossy; the metric is perplexity. Cost: two passes of the calibration text, and `steps`
    trial roundings of 64 rows of each matrix.

    Source: Wei et al., "Outlier Suppression+", EMNLP'23, section 4. Our difference: errors of inputs
    are those of uniform rounding (a twelfth of the squared step), from second moments.
    """

    format: TensorFormat = "Q8_0"
    compensate: bool = False
    steps: int = 10
    """Thresholds that are tried for each site."""

    name: ClassVar[str] = "os-plus"

    def moved(self, unit: Unit) -> Moved:
        moved = Moved()
        for site in sites(unit):
            factors = self._best(site, unit, moved)
            if factors is not None:
                scale(site, unit, moved, factors)
        return moved

    def rule(self, unit: Unit, name: str, tap: Tap) -> InputRule:
        """One scale for all columns, each around its own middle."""
        del unit, name
        return centred(*ranges(tap), self.input_bits)

    def _best(self, site: Site, unit: Unit, moved: Moved) -> Floats | None:
        tap = moved.taps.get(site.readers[0]) or site.tap(unit)
        low, high = ranges(tap)
        spans: Floats = (high - low) / np.float32(2)
        reach = site.of_channels(spans, largest=True)
        values = [moved.values[n] if n in moved.values else unit.values(n) for n in site.readers]
        samples = [v[:: max(1, len(v) // _ROWS)] for v in values]
        least, best = self._error(site, samples, tap, np.ones_like(reach)), None
        for step in range(1, self.steps):
            threshold = max(float(np.quantile(reach, 1 - step / self.steps)), 1e-12)
            factors: Floats = np.maximum(reach / np.float32(threshold), np.float32(1))
            error = self._error(site, samples, tap, factors)
            if error < least:
                least, best = error, factors
        return best

    def _error(self, site: Site, samples: list[Floats], tap: Tap, factors: Floats) -> float:
        """Of what the sampled rows give: by rounding of weights, and of inputs."""
        columns = site.of_columns(factors)
        assert tap.gram is not None, "its needs are declared"
        error = 0.0
        now = tap.divided(columns)
        low, high = ranges(now)
        step = float((high - low).max()) / ((1 << (self.input_bits or 16)) - 1)
        for values in samples:
            grid = self.chosen_grid(values.shape[1])
            scaled = values * columns
            if not isinstance(grid, str):
                _, found = round_plain(grid, scaled, importance(now), search=self.search)
                error += output_error(found / columns - values, tap.gram)
            error += tap.rows * step * step / 12 * float(np.square(scaled).sum())
        return error


def centred(low: Floats, high: Floats, bits: int) -> InputRule:
    """A rule with one scale, that of the column which reaches farthest, and each column's own middle."""
    most = (1 << bits) - 1
    scale = np.full_like(low, max(float((high - low).max()), 1e-8) / most)
    middle = (low + high) / 2
    return InputRule(
        bits=bits, scale=scale, offset=(middle - scale * np.float32(most / 2)).astype(np.float32)
    )
