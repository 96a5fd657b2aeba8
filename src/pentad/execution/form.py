"""ModelForm: the precision in which a model lies in a device's memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pentad.execution.spec import ModelSpec
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelForm:
    """Bits of a stored number, scales and minima of its block included."""

    weight_bits: float = 16
    """Of the layers' matrices, on average."""
    kv_bits: float = 16
    head_bits: float | None = None
    """Of the head, or of the embedding table that serves as one; None: as the layers."""

    def __post_init__(self) -> None:
        for name in ("weight_bits", "kv_bits", "head_bits"):
            in_range(name, getattr(self, name), above=0, most=64)

    def with_weight_bits(self, bits: float) -> ModelForm:
        """The same with all weights, the head's too, in that precision."""
        return replace(self, weight_bits=bits, head_bits=None)

    def weight_bytes(self, parameters: float) -> float:
        """Bytes of that many parameters of the layers."""
        return parameters * self.weight_bits / 8

    def kv_bytes(self, spec: ModelSpec, slots: float, layers: range | None = None) -> float:
        """Bytes of keys and values of `slots` tokens over `layers` (None means all)."""
        first, end = (layers.start, layers.stop) if layers is not None else (0, None)
        return slots * spec.kv_bytes_per_token(self.kv_bits / 8, first, end)
