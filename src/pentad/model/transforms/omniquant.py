"""OmniQuant: how far groups are clipped, and how channels are scaled, is learnt from the layer's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.quantize import encode
from pentad.execution.rounding.block_grids import BlockGrid
from pentad.execution.rounding.grid import rounded
from pentad.execution.rounding.group_grid import GroupGrid
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.transforms.base import Unit
from pentad.model.transforms.clipping import Adam, Clipped
from pentad.model.transforms.equivalence import Site, scale, sites
from pentad.model.transforms.quantizing import CompensatedQuantizer, Moved


@dataclass(frozen=True, slots=True, kw_only=True)
class OmniQuant(CompensatedQuantizer):
    """Learns clipping of each group and factors of each channel by gradient steps, weights frozen.

    Exactness: lossy; the metric is perplexity. Cost: two passes of the calibration text, and `steps`
    times the square of its columns for each row of a matrix.

    Source: Shao et al., "OmniQuant: Omnidirectionally Calibrated Quantization for Large Language
    Models", ICLR'24, section 3. Our difference: the loss is that of each matrix's outputs, from second
    moments, and not that of the whole block; there are no shifts, which norms without one could not
    hold; after learning nothing is made up for, as `compensate` is false.
    """

    format: TensorFormat = "Q4_1"
    compensate: bool = False
    steps: int = 20
    """Gradient steps for each site of a layer."""
    rate: float = 0.02
    """Of the steps, in logarithms of factors and of clips."""

    name: ClassVar[str] = "omniquant"

    def __post_init__(self) -> None:
        CompensatedQuantizer.__post_init__(self)
        whole = self.bits and self.numbers == "integers"
        if self.compensate or not (whole or (not self.bits and self.format in ("Q4_1", "Q5_1"))):
            raise InvalidRequest(
                "omniquant learns a least and a largest number of each group and makes up for nothing",
                hint="leave compensate out, and choose Q4_1, Q5_1 or bits of integers",
                param="format",
            )

    def rewrite(self, unit: Unit) -> Mapping[str, StoredTensor]:
        if unit.layer is None:
            return {}
        moved, learnt = Moved(), dict[str, Clipped]()
        for site in sites(unit):
            learnt |= self._learnt(site, unit, moved)
        now = unit.changed(moved.values, moved.taps)
        found = {name: encode(name, values, "F32") for name, values in moved.values.items()}
        for name in now.matrices():
            found[name] = self._written(now, name, learnt.get(name))
        return found

    def _written(self, unit: Unit, name: str, clip: Clipped | None) -> StoredTensor:
        grid = self.chosen_grid(unit.values(name).shape[1])
        if clip is None or not isinstance(grid, BlockGrid | GroupGrid):
            return CompensatedQuantizer.matrix(self, unit, name)
        blocks = unit.values(name).reshape(-1, grid.elements)
        scales = grid.given(*clip.line(blocks, len(grid.levels) - 1))
        index, _ = rounded(grid, blocks, scales)
        data = grid.pack(index, scales).reshape(-1)
        return StoredTensor(name=name, format=grid.format, shape=unit.values(name).shape, data=data)

    def _learnt(self, site: Site, unit: Unit, moved: Moved) -> dict[str, Clipped]:
        """The clips of the site's readers; its factors are brought into `moved`."""
        tap = moved.taps.get(site.readers[0]) or site.tap(unit)
        assert tap.gram is not None, "its needs are declared"
        values = {n: moved.values[n] if n in moved.values else unit.values(n) for n in site.readers}
        grid = self.chosen_grid(tap.gram.shape[0])
        if not isinstance(grid, BlockGrid | GroupGrid):
            return {}
        most = len(grid.levels) - 1
        logs = np.zeros(len(site.of_channels(tap.square_sum)), np.float32)
        clips = {n: Clipped.whole(v.size // grid.elements) for n, v in values.items()}
        steps = Adam(self.rate)
        least, best = np.inf, (logs, clips)
        for step in range(self.steps + 1):
            columns = site.of_columns(np.exp(logs))
            loss, slope = 0.0, np.zeros_like(columns)
            slopes = {}
            for name, matrix in values.items():
                part, by_column, by_clip = clips[name].gradient(
                    matrix, columns, tap.gram, grid.elements, most
                )
                loss, slope, slopes[name] = loss + part, slope + by_column, by_clip
            if loss < least:
                least, best = loss, (logs, clips)
            if step == self.steps:
                break
            by_channel = site.of_channels(slope) * np.float32(site.shared)
            logs = steps.moved("factors", logs, by_channel)
            clips = {
                n: Clipped(
                    low=np.clip(steps.moved(n + ".low", c.low, slopes[n][0]), 0.3, 1.1),
                    high=np.clip(steps.moved(n + ".high", c.high, slopes[n][1]), 0.3, 1.1),
                )
                for n, c in clips.items()
            }
        scale(site, unit, moved, np.exp(best[0]))
        return best[1]
