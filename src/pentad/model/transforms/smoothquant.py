"""SmoothQuant: outliers of activations are moved into the weights that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import InvalidRequest
from pentad.execution.formats.base import Floats
from pentad.execution.weights import TensorFormat
from pentad.model.transforms.base import Unit
from pentad.model.transforms.equivalence import Site, scale, sites
from pentad.model.transforms.input_quantizing import InputQuantizer, largest
from pentad.model.transforms.quantizing import Moved


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothQuant(InputQuantizer):
    """Divides each channel by max|X|^a / max|W|^(1-a), so that inputs and weights share the range.

    Exactness: lossy; the metric is perplexity. Cost: two passes of the calibration text through each
    layer, and the rounding.

    Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
    Language Models", ICML'23, equation 4. Our difference: the channels between up and down, and between
    values and output, are smoothed too unless `norms_only`; weights are rounded as the options say.
    """

    format: TensorFormat = "Q8_0"
    compensate: bool = False
    strength: float = 0.5
    """How much of the range goes into the weights, 0 (none moves) to 1; a in the formula."""
    norms_only: bool = False
    """Whether channels behind norms alone are smoothed, as in the paper."""

    name: ClassVar[str] = "smoothquant"

    def __post_init__(self) -> None:
        InputQuantizer.__post_init__(self)
        if not 0 <= self.strength <= 1:
            raise InvalidRequest(f"strength is {self.strength}, must be 0 to 1", param="strength")

    def moved(self, unit: Unit) -> Moved:
        moved = Moved()
        for site in sites(unit) if self.strength else ():
            if site.norm_offset is not None or not self.norms_only:
                scale(site, unit, moved, smoothing(site, unit, moved, self.strength))
        return moved


def smoothing(site: Site, unit: Unit, moved: Moved, strength: float) -> Floats:
    """The factors of a site's channels, 1 in the geometric mean."""
    tap = moved.taps.get(site.readers[0]) or site.tap(unit)
    inputs = site.of_channels(largest(tap), largest=True)
    columns = [
        np.abs(moved.values[name] if name in moved.values else unit.values(name)).max(axis=0)
        for name in site.readers
    ]
    weights = site.of_channels(np.maximum.reduce(columns), largest=True)
    weights = np.maximum(weights, np.float32(1e-5) * weights.max() + np.float32(1e-20))
    factors = inputs ** np.float32(strength) / weights ** np.float32(1 - strength)
    found: Floats = factors / np.exp(np.log(factors).mean(dtype=np.float64)).astype(np.float32)
    return found
