"""ModelSpec: what a transformer is, as data. One program reads it; nothing branches on a name.

Axis letters used here and in every shape note: B sequences, T tokens of a step, H query heads,
K key/value heads, D head size, E model width, F feed-forward width, L layers, V vocabulary,
P block (page) of the KV cache, S slots of one sequence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pentad.execution.classifier import Classifier
from pentad.execution.layers import Block as Block
from pentad.execution.layers import FeedForward as FeedForward
from pentad.execution.mixers import Attention as Attention
from pentad.execution.mixers import Norm as Norm
from pentad.execution.mixers import Shape, Shapes, at_least_one
from pentad.execution.positions import Learned as Learned
from pentad.execution.positions import RelativeBuckets
from pentad.execution.positions import Rope as Rope
from pentad.execution.positions import RopeScaling as RopeScaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Layers over one stream of hidden states, and what stands around them."""

    width: int
    blocks: tuple[Block, ...]
    positions: Learned | None = None
    """A table that the stack has once, in front of all layers; rotary positions belong to a layer."""
    relative: RelativeBuckets | None = None
    """Biases of the scores that all layers share (T5, MPNet)."""
    embedding_norm: Norm | None = None
    """On what enters the first layer (BERT, BLOOM)."""
    final_norm: Norm | None = None
    causal: bool = True
    """Whether a token sees those in front of it alone."""
    stem: tuple[Shape, ...] = ()
    """Of a tower: convolutions that make hidden states of pixels or sound, [out, in, *kernel] with bias. Of a
    branch: a matrix [out, in] with bias that makes them of the trunk's."""
    class_token: bool = False
    projector: tuple[Shape, ...] = ()
    """Of a tower: matrices [out, in] with bias that bring its states to the width of the model."""

    def __post_init__(self) -> None:
        at_least_one("width", self.width)
        at_least_one("layers", len(self.blocks))

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """Every tensor of the stack, layer by layer."""
        if self.positions is not None:
            yield "positions", (self.positions.max_positions + self.positions.offset, self.width)
        if self.relative is not None:
            heads = next(b.mixer.heads for b in self.blocks if isinstance(b.mixer, Attention))
            yield "relative", (self.relative.buckets, heads)
        for kind, shapes in (("stem", self.stem), ("projector", self.projector)):
            for i, shape in enumerate(shapes):
                yield f"{kind}.{i}", shape
                yield f"{kind}.{i}.bias", shape[:1]
        if self.class_token:
            yield "class_token", (self.width,)
        if self.embedding_norm is not None:
            yield from self.embedding_norm.shapes("embed_norm", self.width).items()
        for i, block in enumerate(self.blocks):
            for name, shape in block.shapes(self.width).items():
                yield f"layers.{i}.{name}", shape
        if self.final_norm is not None:
            yield from self.final_norm.shapes("final_norm", self.width).items()

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for _, shape in self.shapes())


def counted(blocks: Sequence[Block]) -> list[tuple[Block, int]]:
    """Layers with how often each stands in a row of them; equal ones are usually one object."""
    return [(next(same), 1 + sum(1 for _ in same)) for _, same in itertools.groupby(blocks, key=id)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How hidden states become scores of the next token."""

    tied: bool = True
    """Whether the token embeddings serve as its matrix."""
    bias: bool = False
    cap: float | None = None
    """Logits z become cap * tanh(z / cap) (Gemma 2)."""
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The declarative description of a model: a main stack, and the encoder and towers that it reads.

    Parameters, FLOPs and KV bytes derive from the records, per layer. Raises ValueError on an impossible
    geometry.
    """

    name: str
    family: str
    """Which mapping made this spec (`llama`, `qwen2`, `bert` ...); for people, never for branches."""
    vocab_size: int
    context_length: int
    stack: Stack
    head: Head | None = field(default_factory=Head)
    """None: hidden states are the result, as of an encoder."""
    classifier: Classifier | None = None
    """What makes scores of whole texts."""
    token_types: int = 0
    embedding_scale: float = 1.0
    """Factor of the token embeddings (Gemma)."""
    encoder: Stack | None = None
    """What cross-attention reads (T5, Whisper). Without a stem it shares the token embeddings."""
    towers: tuple[Stack, ...] = ()
    """What makes embeddings of images or sound, which stand among those of tokens."""
    branches: tuple[tuple[str, Stack], ...] = ()
    """Name and layers of what reads the last states of the main stack, each for itself (ERNIE 3.0)."""
    windows: tuple[int | None, ...] = field(init=False, repr=False, compare=False)
    """How many tokens each layer sees at most; None: all."""
    _attention: Attention | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least_one("vocab_size", self.vocab_size)
        at_least_one("context_length", self.context_length)
        object.__setattr__(self, "windows", tuple(block.window for block in self.blocks))
        kinds = {
            (m.heads, m.kv_heads, m.head_dim): m
            for m in (block.mixer for block in dict.fromkeys(self.blocks))
            if isinstance(m, Attention)
        }
        object.__setattr__(self, "_attention", next(iter(kinds.values())) if len(kinds) == 1 else None)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers of the main stack."""
        return self.stack.blocks

    @property
    def layers(self) -> int:
        return len(self.stack.blocks)

    @property
    def width(self) -> int:
        return self.stack.width

    @property
    def causal(self) -> bool:
        """Whether it generates text."""
        return self.stack.causal

    @property
    def learned(self) -> Learned | None:
        """The table of positions in front of the layers."""
        return self.stack.positions

    @property
    def rope(self) -> Rope | None:
        """The rotary positions of the first layer that has any; None where none has."""
        mixers = (block.mixer for block in self.blocks)
        ropes = (m.positions for m in mixers if isinstance(m, Attention))
        return next((rope for rope in ropes if isinstance(rope, Rope)), None)

    @property
    def source_length(self) -> int:
        """The most tokens that its encoder reads; 0 where it has none."""
        if self.encoder is None:
            return 0
        learned = self.encoder.positions
        return self.context_length if learned is None else learned.max_positions

    @property
    def reader(self) -> ModelSpec:
        """The encoder as a model of its own, whose embeddings are these."""
        assert self.encoder is not None, "only models with an encoder have one to read with"
        return replace(
            self,
            stack=self.encoder,
            encoder=None,
            head=None,
            classifier=None,
            towers=(),
            context_length=self.source_length,
        )

    @property
    def tied_head(self) -> bool:
        """Whether the embeddings serve as the head."""
        return self.head is not None and self.head.tied

    @property
    def own_head(self) -> bool:
        """Whether it has a head with a matrix of its own."""
        return self.head is not None and not self.head.tied

    @property
    def heads(self) -> int:
        """Query heads of the layers that attend. Raises ValueError where they differ."""
        return self._alike.heads

    @property
    def kv_heads(self) -> int:
        """Key/value heads, likewise."""
        return self._alike.kv_heads

    @property
    def head_dim(self) -> int:
        """Size of a head, likewise."""
        return self._alike.head_dim

    @property
    def ffn_width(self) -> int:
        """Hidden columns of the layers' feed-forwards. Raises ValueError where they differ."""
        widths = {block.feed_forward.width for block in self.blocks if block.feed_forward is not None}
        if len(widths) != 1:
            raise ValueError(f"the layers of model {self.name!r} have no feed-forward width in common")
        return widths.pop()

    @property
    def _alike(self) -> Attention:
        if self._attention is None:
            raise ValueError(f"the layers of model {self.name!r} have no attention in common")
        return self._attention

    @property
    def attention(self) -> str:
        """Kinds of the layers' mixers: `mha`, `gqa`, `mqa`, `latent`, `recurrent`, joined by +."""
        return "+".join(dict.fromkeys(b.mixer.kind for b in self.blocks if b.mixer is not None))

    @property
    def narrowest_window(self) -> int | None:
        """The smallest of them; None where every layer sees all. At the start of a chunk one is seen."""
        if any(isinstance(block.mixer, Attention) and block.mixer.chunk for block in self.blocks):
            return 1
        return min((w for w in self.windows if w is not None), default=None)

    @property
    def plain_scores(self) -> bool:
        """Whether every layer that attends weighs slots by the softmax of scaled products alone."""
        mixers = (block.mixer for block in self.blocks)
        return self.stack.relative is None and all(
            mixer.plain_scores for mixer in mixers if isinstance(mixer, Attention)
        )

    @property
    def by_head(self) -> bool:
        """Whether every layer keeps keys and values of equal heads, so that single ones may be dropped."""
        alike = self._attention is not None and all(isinstance(b.mixer, Attention) for b in self.blocks)
        return alike and self.encoder is None

    def tensors(self) -> dict[str, Shape]:
        """Every canonical tensor and its shape; those of encoder and towers behind a prefix."""
        found: Shapes = {"embed": (self.vocab_size, self.width)}
        if self.token_types:
            found["token_types"] = (self.token_types, self.width)
        found |= self.stack.shapes()
        if self.head is not None and not self.head.tied:
            found["head"] = (self.vocab_size, self.width)
        if self.head is not None and self.head.bias:
            found["head.bias"] = (self.vocab_size,)
        if self.classifier is not None:
            found |= self.classifier.shapes(self.width)
        others = {f"towers.{i}": tower for i, tower in enumerate(self.towers)}
        if self.encoder is not None:
            others["encoder"] = self.encoder
        others |= {f"branches.{name}": stack for name, stack in self.branches}
        for prefix, stack in others.items():
            found |= {f"{prefix}.{name}": shape for name, shape in stack.shapes()}
        return found

    @property
    def parameters(self) -> int:
        """All parameters; a tied head counts once."""
        return sum(math.prod(shape) for shape in self.tensors().values())

    @property
    def active_parameters(self) -> int:
        """Without the experts that a token doesn't go through."""
        idle = sum(
            math.prod(block.shapes(self.width)[name]) * (1 - share)
            for block in (*self.blocks, *(() if self.encoder is None else self.encoder.blocks))
            if block.feed_forward is not None
            for name, share in block.feed_forward.active().items()
        )
        return self.parameters - round(idle)

    def layer_parameters(self, first: int = 0, end: int | None = None) -> int:
        """Parameters of the layers from `first` to in front of `end`."""
        return sum(count * block.parameters(self.width) for block, count in counted(self.blocks[first:end]))

    def kv_bytes_per_token(self, element_bytes: float = 2, first: int = 0, end: int | None = None) -> int:
        """Bytes that one token adds to the cache over these layers, were every one of them kept."""
        elements = sum(count * block.kv_elements for block, count in counted(self.blocks[first:end]))
        return round(elements * element_bytes)

    def state_bytes(self, element_bytes: float = 4) -> int:
        """Bytes that a sequence holds whatever its length, of recurrent layers."""
        mixers = (block.mixer for block in self.blocks)
        return round(sum(m.state_elements for m in mixers if m is not None) * element_bytes)

    def flops(self, tokens: int, context: int, logit_rows: int | None = None) -> int:
        """Multiply-adds times two for a step of `tokens` new tokens that each see about `context` slots.

        Args:
            tokens: new tokens computed.
            context: mean number of slots each new token attends to; a layer's window cuts it.
            logit_rows: rows through the head; None means all tokens.
        """
        each = 0.0
        for block in self.blocks:
            seen = context if block.window is None else min(context, block.window)
            pairs = 0 if block.mixer is None else block.mixer.pair_products()
            each += block.active_products(self.width) + pairs * seen
        head = self.vocab_size * self.width * (tokens if logit_rows is None else logit_rows)
        return round(2 * (tokens * each + (head if self.head is not None else 0)))

    def with_attention(self, **changes: Any) -> ModelSpec:
        """The same model with other fields in every layer's attention."""
        return self.with_blocks(
            lambda block: (
                replace(block, mixer=replace(block.mixer, **changes))
                if isinstance(block.mixer, Attention)
                else block
            )
        )

    def with_blocks(self, change: Callable[[Block], Block]) -> ModelSpec:
        """The same model with every layer changed; equal layers stay one object."""
        changed = {block: change(block) for block in dict.fromkeys(self.blocks)}
        blocks = tuple(changed[block] for block in self.blocks)
        return replace(self, stack=replace(self.stack, blocks=blocks))
