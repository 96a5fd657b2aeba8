"""AWQ: channels that carry much are scaled up before rounding, by a power of their activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from pentad.execution.formats.base import Floats
from pentad.execution.taps import Tap
from pentad.model.transforms.base import Unit
from pentad.model.transforms.compensation import round_plain
from pentad.model.transforms.equivalence import Site, scale, sites
from pentad.model.transforms.hessian import output_error
from pentad.model.transforms.quantizing import CompensatedQuantizer, Moved, importance

_ROWS: Final = 128
"""Of each matrix that candidates are tried on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AWQ(CompensatedQuantizer):
    """Scales the columns that see large activations up, folded into what makes them, then rounds.

    Exactness: lossy; the metric is perplexity. Cost: as gptq, and `steps` trial roundings of 128 rows
    of each matrix.

    Source: Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and
    Acceleration", MLSys'24, section 3.2. Our difference: the error of a candidate is that of each
    matrix's outputs on 128 of its rows, from second moments; in the place of its search for
    clipping stands the search of scales, and errors are made up for unless `compensate` is false.
    """

    steps: int = 10
    """Powers between 0 and 1 that are tried."""

    name: ClassVar[str] = "awq"

    def moved(self, unit: Unit) -> Moved:
        moved = Moved()
        for site in sites(unit):
            factors = self._best(site, unit, moved)
            if factors is not None:
                scale(site, unit, moved, factors)
        return moved

    def _best(self, site: Site, unit: Unit, moved: Moved) -> Floats | None:
        """The factors of least error; None where none is better than 1."""
        tap = site.tap(unit)
        size = site.of_channels(tap.absolute_sum / np.float32(tap.rows))
        size = np.maximum(size, np.float32(1e-4) * size.mean() + np.float32(1e-20))
        values = [moved.values[n] if n in moved.values else unit.values(n) for n in site.readers]
        samples = [v[:: max(1, len(v) // _ROWS)] for v in values]
        least, best = self._error(site, samples, tap, np.ones_like(size)), None
        for step in range(1, self.steps + 1):
            factors = size ** np.float32(step / self.steps)
            factors = factors / np.sqrt(factors.max() * factors.min())
            error = self._error(site, samples, tap, factors)
            if error < least:
                least, best = error, factors
        return best

    def _error(self, site: Site, samples: list[Floats], tap: Tap, factors: Floats) -> float:
        """What rounding of the scaled rows does to what they give."""
        columns = site.of_columns(factors)
        weights = importance(tap.divided(columns))
        assert tap.gram is not None, "its needs are declared"
        error = 0.0
        for values in samples:
            grid = self.chosen_grid(values.shape[1])
            if isinstance(grid, str):
                continue
            _, found = round_plain(grid, values * columns, weights, search=self.search)
            error += output_error(found / columns - values, tap.gram)
        return error
