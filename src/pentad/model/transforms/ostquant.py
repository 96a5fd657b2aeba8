"""OSTQuant: orthogonal and diagonal matrices make inputs fill the space that codes span."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.weights import TensorFormat
from pentad.model.transforms.base import Unit
from pentad.model.transforms.equivalence import scale, sites
from pentad.model.transforms.input_quantizing import InputQuantizer, Scope
from pentad.model.transforms.quantizing import Moved
from pentad.model.transforms.smoothquant import smoothing


@dataclass(frozen=True, slots=True, kw_only=True)
class OSTQuant(InputQuantizer):
    """Balances the channels between matrices of a layer, for a model whose stream `rotate` has turned.

    Exactness: lossy; the metric is perplexity. Cost: as gptq.

    Source: Hu et al., "OSTQuant: Refining Large Language Model Quantization with Orthogonal and Scaling
    Transformations", ICLR'25, section 3.2. Our difference: nothing is learnt on the manifold; the
    orthogonal matrices are `rotate`'s random ones, the diagonal ones follow from ranges, and they
    stand between `up` and `down` alone, since a turned stream has no channels to scale.
    """

    format: TensorFormat = "Q4_0"
    scope: Scope = "token"
    input_bits: int = 4
    strength: float = 0.5
    """How much of a channel's range goes into the weights that read it, 0 to 1."""

    name: ClassVar[str] = "ostquant"

    def moved(self, unit: Unit) -> Moved:
        moved = Moved()
        for site in sites(unit) if self.strength else ():
            if site.norm_offset is None and site.head_dim == 1:
                scale(site, unit, moved, smoothing(site, unit, moved, self.strength))
        return moved
