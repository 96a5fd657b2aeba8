"""Rotate: the stream between layers is turned, so that no channel stands out; the model computes the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import Incompatible
from pentad.execution.formats.base import Floats
from pentad.execution.spec import Attention, FeedForward, ModelSpec
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.transforms.base import Unit, written
from pentad.model.transforms.rotation import orthogonal
from pentad.types import Exactness

_READERS = {"attn_norm": ("q", "k", "v"), "ffn_norm": ("gate", "up")}
_WRITERS = ("o", "down")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate:
    """Turns the stream and each value head by orthogonal matrices that stand in the weights alone.

    Scales of norms go into the matrices that read them, since only norms without scales turn with
    the stream. For models with RMS norms in front of plain parts and a head of their own. What a
    quantizer does afterwards is another `compress`, calibrated on the turned model.

    Exactness: bounded, by rounding of float32 (and of `format`). Cost: two products of each matrix
    with one of the model's width.

    Source: Ashkboos et al., "QuaRot", NeurIPS'24, section 4, and Hu et al., "OSTQuant", ICLR'25,
    section 3.2. Our difference: the matrices are random, and nothing turns at run time.
    """

    seed: int = 0
    """Of the random matrices."""
    format: TensorFormat = "F16"
    """Format of the turned matrices."""

    name: ClassVar[str] = "rotate"
    exactness: ClassVar[Exactness] = "bounded"
    needs: ClassVar[frozenset[str]] = frozenset()

    def target(self, spec: ModelSpec) -> ModelSpec:
        """The same spec. Raises Incompatible where the stream cannot be turned."""
        for block in dict.fromkeys(spec.blocks):
            plain = block.placement == "pre" and not (block.parallel or block.entry_norm or block.cross)
            plain = (
                plain and isinstance(block.mixer, Attention) and isinstance(block.feed_forward, FeedForward)
            )
            if not plain or block.norm.kind != "rms":
                raise Incompatible(
                    f"the stream of {spec.name!r} cannot be turned: not every layer is RMS norm, attention, "
                    "RMS norm and feed-forward",
                    hint="choose smoothquant or awq, which work within a layer",
                )
        if spec.stack.positions is not None or spec.stack.embedding_norm is not None or not spec.own_head:
            raise Incompatible(
                f"the stream of {spec.name!r} cannot be turned: its embeddings are its head, or stand "
                "behind a norm or learned positions",
                hint="choose smoothquant or awq, which work within a layer",
            )
        return spec

    def rewrite(self, unit: Unit) -> Mapping[str, StoredTensor]:
        self.target(unit.spec)
        turn = orthogonal(unit.spec.width, self.seed)
        new = self._outside(unit, turn) if unit.layer is None else self._layer(unit, unit.layer, turn)
        return {
            name: written(name, values, self.format if values.ndim > 1 else "F32")
            for name, values in new.items()
        }

    def _outside(self, unit: Unit, turn: Floats) -> dict[str, Floats]:
        norm = unit.spec.stack.final_norm
        head = unit.values("head")
        new = {"embed": unit.values("embed") @ turn}
        if norm is not None:
            head = head * (unit.values("final_norm") + np.float32(norm.offset))
            new["final_norm"] = np.full(unit.spec.width, 1 - norm.offset, np.float32)
        return {**new, "head": head @ turn}

    def _layer(self, unit: Unit, layer: int, turn: Floats) -> dict[str, Floats]:
        block, prefix = unit.spec.blocks[layer], f"layers.{layer}."
        present = set(unit.names())
        new: dict[str, Floats] = {}
        for norm, readers in _READERS.items():
            if prefix + norm not in present:
                continue
            factors = unit.values(prefix + norm) + np.float32(block.norm.offset)
            new[prefix + norm] = np.full_like(factors, 1 - block.norm.offset)
            for name in (prefix + reader for reader in readers):
                if name in present:
                    new[name] = (unit.values(name) * factors) @ turn
        for name in sorted(present & {prefix + writer for writer in _WRITERS}):
            new[name] = turn.T @ unit.values(name)
            if f"{name}.bias" in present:
                new[f"{name}.bias"] = turn.T @ unit.values(f"{name}.bias")
        assert isinstance(block.mixer, Attention), "target says so"
        if present.issuperset((prefix + "v", prefix + "o")):
            turn_values(
                unit, new, prefix, block.mixer, orthogonal(block.mixer.head_dim, self.seed + 1 + layer)
            )
        return new


def turn_values(unit: Unit, new: dict[str, Floats], prefix: str, mixer: Attention, turn: Floats) -> None:
    """Turns every value head [D] by `turn` [D, D] and the columns of `o` back; `new` takes the result."""
    for name in (prefix + "v", prefix + "v.bias"):
        if name in set(unit.names()):
            now = new[name] if name in new else unit.values(name)
            heads = now.reshape(mixer.kv_heads, mixer.head_dim, -1)
            new[name] = np.einsum("de,kdx->kex", turn, heads, optimize=True).reshape(now.shape)
    name = prefix + "o"
    now = new[name] if name in new else unit.values(name)
    parts = now.reshape(len(now), mixer.heads, mixer.head_dim)
    new[name] = np.ascontiguousarray((parts @ turn).reshape(now.shape))


def untied(spec: ModelSpec) -> ModelSpec:
    """The spec with a head of its own."""
    assert spec.head is not None
    return dataclasses.replace(spec, head=dataclasses.replace(spec.head, tied=False))
