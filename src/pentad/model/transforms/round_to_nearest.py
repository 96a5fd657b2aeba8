"""Another number format, each block rounded by itself: the baseline that every quantizer must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.quantize import encode, fits, writable
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.transforms.base import Unit
from pentad.model.transforms.quantizing import Quantizer


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundToNearest(Quantizer):
    """Writes every matrix of the layers in another format, rounding each value to the nearest code.

    Embeddings, head and norms stay as they are. Without `search`, formats that ggml has a reference for
    get its bytes.

    Exactness: lossy; the metric is perplexity. Cost: one pass over the weights. Source: the usual
    baseline of post-training quantization.
    """

    format: TensorFormat = "Q8_0"
    search: bool = False

    name: ClassVar[str] = "round-to-nearest"

    def matrix(self, unit: Unit, name: str) -> StoredTensor:
        values = unit.values(name)
        if (
            not self.search
            and not self.bits
            and self.format in writable()
            and fits(values.shape, self.format)
        ):
            return encode(name, values, self.format)
        return Quantizer.matrix(self, unit, name)
