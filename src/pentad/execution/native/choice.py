"""Which runner and kernels a model gets on this machine: pure functions of what is there."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from pentad.errors import Incompatible, UnknownName
from pentad.execution.layers import Experts
from pentad.execution.mixers import LatentAttention, Recurrent, ShortConvolution
from pentad.execution.native.forms import FORMS
from pentad.execution.native.latent import latent_limits
from pentad.execution.native.library import NEEDS, usable
from pentad.execution.native.structs import ACTIVATIONS
from pentad.execution.positions import ProjectedDistances
from pentad.execution.spec import Attention, Block, FeedForward, ModelSpec, Rope
from pentad.execution.support import first_unsupported, unsupported_parts
from pentad.execution.weights import WeightSource
from pentad.types import Decision

AUTO: Final = "auto"
TORCH: Final = "torch"
CHOICES: Final = (AUTO, *NEEDS, TORCH)
"""Values of the setting `kernels`."""

_LANES: Final = 32
_HALF: Final = 16
_MOST_HEAD_DIM: Final = 256
_MOST_TAPS: Final = 16
"""Tokens that a short convolution sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerChoice:
    """Who runs a model, and why."""

    runner: Literal["native", "torch"]
    """Registered name."""
    kernels: str | None
    """The instruction set of the native runner."""
    device: str = "cpu"
    """Where PyTorch computes; `auto` leaves it to PyTorch."""
    decision: Decision


def unsupported_geometry(spec: ModelSpec) -> str | None:
    """What of a spec the kernels cannot do; None if they can do all of it."""
    return first_unsupported(spec, _decoder_limits)


def _decoder_limits(spec: ModelSpec) -> Iterator[str]:
    if not spec.causal or spec.head is None:
        yield "it is an encoder"
    if spec.encoder is not None:
        yield "it has an encoder beside its decoder"
    yield from unsupported_parts(spec)
    yield from _mixer_limits(spec)
    if spec.token_types:
        yield "it has token types"
    if spec.width % _LANES:
        yield f"its width {spec.width} is not a multiple of {_LANES}"
    for block in dict.fromkeys(spec.blocks):
        yield from _layer_limits(block)


def _mixer_limits(spec: ModelSpec) -> Iterator[str]:
    """Ways of mixing tokens that only PyTorch computes."""
    mixers = {block.mixer: f"layer {i}" for i, block in reversed(tuple(enumerate(spec.blocks)))}
    for mixer, where in reversed(mixers.items()):
        if isinstance(mixer, LatentAttention):
            yield from (f"{where} {what}" for what in latent_limits(mixer))
        elif isinstance(mixer, Recurrent | ShortConvolution):
            yield from (f"{where} {what}" for what in _state_limits(mixer))
        elif isinstance(mixer, Attention) and isinstance(mixer.positions, ProjectedDistances):
            yield f"{where} projects distances"
        elif isinstance(mixer, Attention) and mixer.position_queries is not None:
            yield f"{where} makes queries of positions"
    if spec.stack.relative is not None:
        yield "its scores have relative biases"
    if not all(block.mixer_norm for block in spec.blocks):
        yield "one of its layers attends without a norm"
    if any(block.entry_norm for block in spec.blocks):
        yield "one of its layers norms the stream in front of it"
    attending = [m for m in mixers if isinstance(m, Attention | LatentAttention)]
    if len({(m.heads, m.cache_row) for m in attending}) > 1:
        yield "its layers differ in heads"


def _state_limits(mixer: Recurrent | ShortConvolution) -> Iterator[str]:
    """What is computed in whole groups of 16 and 32."""
    if mixer.conv > _MOST_TAPS:
        yield f"convolves {mixer.conv} tokens, more than {_MOST_TAPS}"
    if isinstance(mixer, ShortConvolution):
        if mixer.channels % _LANES:
            yield f"convolves {mixer.channels} channels, no multiple of {_LANES}"
        return
    normed = mixer.value_dim if mixer.rule == "gated_delta" else mixer.inner // mixer.norm_groups
    if mixer.key_dim % _HALF or mixer.value_dim % _HALF:
        yield f"has states of {mixer.key_dim} by {mixer.value_dim}, no multiples of {_HALF}"
    if normed % _LANES:
        yield f"norms {normed} numbers of a recurrence together, no multiple of {_LANES}"


def _layer_limits(block: Block) -> Iterator[str]:
    if isinstance(block.mixer, Attention):
        yield from _attention_limits(block.mixer)
    if block.shared_norm and block.placement != "pre":
        yield "one norm serves both parts, and stands behind one of them"
    inner = block.feed_forward
    if isinstance(inner, Experts):
        yield from _expert_limits(inner)
    elif inner is not None:
        yield from _inner_limits("feed-forward", inner)


def _attention_limits(mixer: Attention) -> Iterator[str]:
    if mixer.head_dim % _LANES or mixer.head_dim > _MOST_HEAD_DIM:
        yield f"its head size {mixer.head_dim} is not a multiple of {_LANES} up to {_MOST_HEAD_DIM}"
    rope = mixer.positions
    if isinstance(rope, Rope) and (rope.dim % 2 or not 0 < rope.dim <= mixer.head_dim):
        yield f"it turns {rope.dim} of {mixer.head_dim} elements of a head"
    if mixer.qk_norm == "all" and (mixer.qk_norm_kind != "rms" or mixer.qk_norm_last):
        yield "it normalises all heads together by layer norms or behind the rotation"


def _inner_limits(part: str, inner: FeedForward) -> Iterator[str]:
    if inner.activation not in ACTIVATIONS:
        yield f"its {part}'s activation is {inner.activation}"
    if inner.width % _LANES:
        yield f"its {part} width {inner.width} is not a multiple of {_LANES}"


def _expert_limits(experts: Experts) -> Iterator[str]:
    yield from _inner_limits("expert", experts.expert)
    if experts.shared is not None and replace(experts.shared, width=1) != replace(experts.expert, width=1):
        yield "its shared experts are of another kind than the routed ones"
    elif experts.shared is not None:
        yield from _inner_limits("shared expert", experts.shared)


def unsupported_storage(weights: WeightSource) -> str | None:
    """The first tensor in a format that cannot be packed; None if there is none."""
    for name in weights.names():
        stored = weights.tensor(name)
        if stored.format not in FORMS:
            return f"its tensor {name!r} is stored as {stored.format}"
    return None


def unsupported_encoder(spec: ModelSpec) -> str | None:
    """What of an encoder's spec the kernels cannot do; None if they can do all of it."""
    return first_unsupported(spec, _encoder_limits)


def _encoder_limits(spec: ModelSpec) -> Iterator[str]:
    if spec.causal:
        yield "it generates text"
    yield from unsupported_parts(spec)
    yield from _mixer_limits(spec)
    if not all(isinstance(block.mixer, Attention) and block.feed_forward for block in spec.blocks):
        yield "one of its layers lacks attention or a feed-forward"
    if spec.classifier is not None:
        yield "it scores texts with a classifier"
    if spec.learned is None:
        yield "its positions are not learned"
    if spec.stack.embedding_norm is None:
        yield "it does not normalise its embeddings"
    if len(set(spec.blocks)) > 1:
        yield "its layers differ"
    block = spec.blocks[0]
    mixer, inner = block.mixer, block.feed_forward
    assert isinstance(mixer, Attention)
    if not isinstance(inner, FeedForward):
        yield "it has routed experts"
        return
    if block.norm.kind != "layer":
        yield "it has no layer norms"
    if block.placement != "post":
        yield "it normalises before its blocks"
    if inner.gated:
        yield "its feed-forward is gated"
    if not (mixer.qkv_bias and mixer.out_bias and inner.bias):
        yield "it has matrices without biases"
    if mixer.kv_heads != mixer.heads:
        yield "its query heads share keys and values"
    if mixer.qk_norm is not None:
        yield "it normalises queries and keys"
    if block.parallel:
        yield "its attention and feed-forward are parallel"
    if mixer.window is not None:
        yield "its attention has a window"
    if block.residual_scale != 1:
        yield "it scales what it adds"
    if mixer.qkv_bias and not mixer.key_bias:
        yield "its keys have no bias, its queries have"
    if mixer.output_gate or not mixer.plain_scores:
        yield "its attention is more than the softmax of scaled products"
    if mixer.head_dim % _HALF:
        yield f"its head size {mixer.head_dim} is not a multiple of {_HALF}"
    if any(n % _LANES for n in (spec.width, inner.width, mixer.heads * mixer.head_dim)):
        yield f"one of its widths is not a multiple of {_LANES}"


def choose_kernels(asked: str, *, built: Collection[str], flags: Collection[str]) -> str:
    """The instruction set asked for, or the fastest that is built and that the CPU has.

    Args:
        asked: a name of `NEEDS`, or `auto`.
        built: libraries that are installed.
        flags: of the CPU.

    Raises:
        UnknownName: no such instruction set.
        Incompatible: it is not built or not for this CPU, or there is none at all.
    """
    if asked != AUTO and asked not in NEEDS:
        raise UnknownName(f"unknown kernels {asked!r}", hint=f"known: {', '.join(CHOICES)}", param="kernels")
    possible = usable(flags, built)
    if asked == AUTO:
        if not possible:
            raise Incompatible(_none_usable(built), hint=_REMEDY, param="kernels")
        return possible[0]
    if asked not in possible:
        what = "are not for this CPU" if asked in built else "are not installed"
        raise Incompatible(
            f"the {asked!r} kernels {what}",
            hint=f"possible: {', '.join((AUTO, *possible, TORCH))}",
            param="kernels",
        )
    return asked


def choose_runner(
    asked: str,
    unsupported: str | None,
    *,
    model: str,
    dtype: str,
    device: str = "cpu",
    built: Collection[str],
    flags: Collection[str],
) -> RunnerChoice:
    """Who runs a model: native kernels where they can, else PyTorch; PyTorch wherever a GPU is asked for.

    Args:
        asked: the setting `kernels`: `auto`, `torch` or an instruction set.
        unsupported: why the kernels cannot run the model; None if they can.
        model: its name.
        dtype: the setting `weight_dtype`.
        device: the setting `device`.
        built: libraries that are installed.
        flags: of the CPU.

    Raises:
        UnknownName, Incompatible: kernels asked for by name that cannot be had, or not for this model.
    """
    if device.startswith("cuda"):
        if asked not in (AUTO, TORCH):
            raise Incompatible(
                f"kernels {asked!r} compute on the CPU, but device is {device!r}",
                hint=f"set kernels to {AUTO} or {TORCH}, or device to cpu",
                param="device",
            )
        return _choice(asked, None, f"the setting device is {device}", built, flags, device)
    if asked not in (AUTO, TORCH):
        name = choose_kernels(asked, built=built, flags=flags)
        if unsupported is not None:
            raise Incompatible(
                f"model {model!r} cannot run on the native kernels: {unsupported}",
                hint=f"set kernels to {AUTO} or {TORCH}",
                param="kernels",
            )
        return _choice(asked, name, None, built, flags)
    if asked == TORCH:
        return _choice(asked, None, "the setting kernels asks for it", built, flags, device)
    possible = usable(flags, built)
    if unsupported is not None:
        return _choice(asked, None, unsupported, built, flags, device)
    if dtype != AUTO:
        return _choice(asked, None, f"the setting weight_dtype is {dtype}", built, flags, device)
    if not possible:
        return _choice(asked, None, _none_usable(built), built, flags, device)
    return _choice(asked, possible[0], None, built, flags)


def check_installed(choice: RunnerChoice, *, model: str) -> None:
    """Raises Incompatible when a model needs PyTorch and it is not installed."""
    if choice.runner == "torch" and importlib.util.find_spec("torch") is None:
        raise Incompatible(
            f"model {model!r} needs PyTorch here ({choice.decision.constraint}), which is not installed",
            hint=TORCH_REMEDY,
            param="kernels",
        )


TORCH_REMEDY: Final = "pip install 'pentad[torch]'"
_REMEDY: Final = "install a C++20 compiler and run scripts/setup again, or choose --kernels torch"


def _none_usable(built: Collection[str]) -> str:
    if not built:
        return "no native kernels are installed"
    return f"none of the installed native kernels ({', '.join(built)}) are for this CPU"


def _choice(
    asked: str,
    kernels: str | None,
    constraint: str | None,
    built: Collection[str],
    flags: Collection[str],
    device: str = "cpu",
) -> RunnerChoice:
    decision = Decision(
        layer="execution",
        policy="kernels",
        subject=f"kernels={asked}",
        chosen=kernels or TORCH,
        candidates=tuple((name, None) for name in (*usable(flags, built), TORCH)),
        constraint=constraint,
    )
    return RunnerChoice(
        runner="native" if kernels else "torch", kernels=kernels, device=device, decision=decision
    )
