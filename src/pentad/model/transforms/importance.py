"""Scales of least weighted error: what enters a column says how much its errors count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.model.transforms.quantizing import Quantizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance(Quantizer):
    """Gives each block the scales whose errors count least, a column by what enters it.

    Exactness: lossy; the metric is perplexity. Cost: two passes of the calibration text through each
    layer, and some thirty tries for each block.

    Source: llama.cpp's importance matrix (`llama-imatrix`, `quantize --imatrix`). Our difference:
    columns count their mean square alone, not times the size of the weight.
    """

    name: ClassVar[str] = "importance"
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
