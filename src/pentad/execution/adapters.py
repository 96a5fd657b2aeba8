"""Low-rank adapters: small additions to a model's matrices, which rows of a step have or have not.

y = W x + up (down x), with the scale already in `up` (LoRA: Hu et al., ICLR'22).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pentad.errors import ModelNotFound
from pentad.execution.layers import FeedForward
from pentad.execution.positions import Rope
from pentad.execution.rope import half_order
from pentad.execution.spec import Attention, ModelSpec

Floats = npt.NDArray[np.float32]
ADAPTED: Final = ("q", "k", "v", "o", "gate", "up", "down")
"""Tensors of a layer that an adapter may add to."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """The addition to one matrix."""

    down: Floats
    """[r, in]"""
    up: Floats
    """[out, r], times the scale"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter, ready for any runner."""

    key: str
    """Name and digest: what it has computed is never taken for another one's."""
    pairs: Mapping[str, LowRank]
    """Canonical tensor name (`layers.0.q`) to what is added to it."""
    stored_order: bool
    """Whether rows of queries and keys lie as in the file of the base, else halves of rotary pairs."""

    @property
    def size_bytes(self) -> int:
        return sum(pair.down.nbytes + pair.up.nbytes for pair in self.pairs.values())


class Adapters(Protocol):
    """The adapters that a runner has. Any thread may put and drop; steps see either the old or the new."""

    def keys(self) -> Collection[str]: ...

    def put(self, adapter: Adapter) -> None:
        """Takes an adapter from the next step on."""
        ...

    def drop(self, key: str) -> None:
        """Gives an adapter's memory back; no sequence may still have it."""
        ...


@runtime_checkable
class AdaptedRunner(Protocol):
    """A runner that takes batches with `adapters`."""

    @property
    def adapters(self) -> Adapters | None:
        """None where it was loaded without room for any."""
        ...


def placed_up(adapter: Adapter, name: str, spec: ModelSpec) -> Floats:
    """`up` of an adapter's pair, with rows of queries and keys as runners have them: pairs as halves."""
    up = adapter.pairs[name].up
    _, layer, tensor = name.split(".")
    mixer = spec.blocks[int(layer)].mixer
    if not adapter.stored_order or tensor not in ("q", "k"):
        return up
    assert isinstance(mixer, Attention)
    if not isinstance(mixer.positions, Rope):
        return up
    order = half_order(mixer.heads if tensor == "q" else mixer.kv_heads, mixer.head_dim, mixer.positions)
    return up if order is None else up[order]


def adapters_of(runner: Any) -> Adapters | None:
    """The runner's adapters; None where it takes none."""
    return runner.adapters if isinstance(runner, AdaptedRunner) else None


def check_adapter(key: str, runner: Any) -> None:
    """Raises ModelNotFound for an adapter that the runner does not have."""
    found = adapters_of(runner)
    if found is None or key not in found.keys():  # noqa: SIM118 - a protocol's method
        raise ModelNotFound(
            f"the engine has no adapter {key.partition('@')[0]!r}",
            hint="name it in engine.adapters and start again",
            param="model",
        )


def unadaptable(spec: ModelSpec) -> str | None:
    """Why adapters cannot be added to a model's layers; None where they can."""
    if spec.encoder is not None:
        return "it has an encoder beside its decoder"
    for block in spec.blocks:
        if not isinstance(block.mixer, Attention) or not isinstance(block.feed_forward, FeedForward):
            return "its layers are not all plain attention and a dense feed-forward"
    return None
