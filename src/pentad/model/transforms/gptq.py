"""GPTQ: each column is rounded in turn, and those behind it make up for the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.model.transforms.quantizing import CompensatedQuantizer


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTQ(CompensatedQuantizer):
    """Rounds column by column, the columns behind taking on what keeps the layer's outputs.

    Exactness: lossy; the metric is perplexity. Cost: two passes of the calibration text through each
    layer, and for each matrix the inverse of its inputs' second moments, cubic in its columns.

    Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers", ICLR'23, algorithm 1. Our difference: it writes blocks of any of our formats, and a
    block's scales are searched by importance when it is reached (`search`); columns keep their order.
    """

    name: ClassVar[str] = "gptq"
