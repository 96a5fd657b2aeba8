"""Another number format, each block rounded by itself: the baseline that every quantizer must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.formats.base import Floats
from pentad.execution.taps import Tap
from pentad.execution.weights import TensorFormat
from pentad.model.transforms.base import MatrixTransform
from pentad.types import Exactness


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundToNearest(MatrixTransform):
    """Writes every matrix of the layers in another format, rounding each value to the nearest code.

    Embeddings, head and norms stay as they are. Exactness: lossy; the metric is perplexity. Cost:
    one pass over the weights. Source: the usual baseline of post-training quantization.
    """

    format: TensorFormat = "Q8_0"
    """Format of the matrices: F32, F16, BF16, Q8_0, Q4_0 or Q4_1."""

    name: ClassVar[str] = "round-to-nearest"
    exactness: ClassVar[Exactness] = "lossy"

    def matrix(self, values: Floats, tap: Tap | None) -> Floats:
        del tap
        return values
