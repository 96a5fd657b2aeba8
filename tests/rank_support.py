"""Tiny models and the ranks that compute them, as threads of this process or as processes of their own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from pentad.choice import Choice, build
from pentad.errors import PentadError
from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import Attention, Norm
from pentad.execution.positions import Rope
from pentad.execution.ranks.company import Meeting
from pentad.execution.ranks.host import serve_rank
from pentad.execution.ranks.layout import Layout
from pentad.execution.ranks.runner import RankedRunner
from pentad.execution.spec import Head, ModelSpec, Stack
from pentad.execution.transport.base import Member, Transport
from pentad.execution.weights import WeightSource
from torch_reference import ArrayWeights

KEY = bytes(range(32))
IN_PROCESS = Choice(name="in-process")


def tiny_spec(
    *,
    layers: int = 4,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    ffn: int = 192,
    vocab: int = 160,
    experts: Experts | None = None,
    tied: bool = True,
    biased: bool = False,
) -> ModelSpec:
    """A small Llama, or with experts in the place of its feed-forwards."""
    mixer = Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=16,
        positions=Rope(dim=16),
        qkv_bias=biased,
        out_bias=biased,
        qk_norm="head",
    )
    inner = experts or FeedForward(width=ffn, activation="silu", gated=True, bias=biased)
    block = Block(mixer=mixer, feed_forward=inner, norm=Norm())
    return ModelSpec(
        name="tiny",
        family="tiny",
        vocab_size=vocab,
        context_length=512,
        stack=Stack(width=width, blocks=(block,) * layers, final_norm=Norm()),
        head=Head(tied=tied),
    )


def tiny_experts(count: int = 6, **changes: Any) -> Experts:
    """A few narrow experts and a shared one."""
    narrow = FeedForward(width=64, activation="silu", gated=True)
    return Experts(**{"count": count, "per_token": 2, "expert": narrow, "shared": narrow, **changes})


def random_weights(spec: ModelSpec, seed: int = 5) -> ArrayWeights:
    """Numbers of a size at which every tensor shows in the logits."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in spec.tensors().items():
        values = rng.normal(0, 0.2, shape).astype(np.float32)
        arrays[name] = values + 1 if name.endswith("norm") else values
    return ArrayWeights(arrays)


@contextlib.contextmanager
def ranks(
    spec: ModelSpec,
    weights: WeightSource,
    layout: str,
    *,
    processes: bool = False,
    transport: Choice = IN_PROCESS,
    codec: Choice | None = None,
    pieces: int = 4,
    num_blocks: int = 64,
    back_s: float = 5.0,
    over: Transport | None = None,
    kernels: str = "torch",
) -> Iterator[RankedRunner]:
    """The model on a group of ranks, PyTorch's in float32; `over` is the transport as ranks but 0 see it."""
    shape = Layout.parse(layout, spec.layers)
    threads: list[threading.Thread] = []
    reached: Transport = over or build("transport", transport)

    def start(address: str) -> None:
        for rank in range(1, shape.size):
            member = Member(group="pentad", rank=rank, size=shape.size, key=KEY)
            threads.append(threading.Thread(target=_serve, args=(reached, address, member), daemon=True))
            threads[-1].start()

    made = RankedRunner(
        spec,
        weights,
        shape,
        meeting=Meeting() if processes else Meeting(transport=transport, key=KEY, back_s=back_s),
        num_blocks=num_blocks,
        dtype="float32" if kernels == "torch" else "auto",
        threads=1,
        kernels=kernels,
        codec=codec,
        pieces=pieces,
        listening=None if processes else start,
    )
    try:
        yield made
    finally:
        made.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def _serve(transport: Transport, address: str, member: Member) -> None:
    with contextlib.suppress(PentadError):  # the other ranks are told by the end of their links
        serve_rank(transport, address, member, back_s=5.0)
