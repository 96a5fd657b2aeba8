"""What one rank has of a model: a smaller spec, and the rows and columns of its weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.errors import Incompatible
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.layers import Block, Experts, FeedForward
from pentad.execution.mixers import Attention, Mixer
from pentad.execution.positions import Alibi
from pentad.execution.quant import dequantize
from pentad.execution.ranks.layout import Layout, spans
from pentad.execution.spec import Head, ModelSpec
from pentad.execution.weights import StoredTensor, WeightSource

_LAYER: Final = re.compile(r"layers\.(\d+)\.(.+)")
_LANES: Final = 32
"""Feed-forward columns are cut at multiples, where stored blocks end."""
ROUTER: Final = "whole_router"
"""Behind a layer's prefix: its router for all experts, of a rank that has some of them."""
_OF_HEADS: Final = frozenset({"q", "k", "v", "o", "attn_gate", "sinks", "q_norm", "k_norm"})
_PIPE: Final = "use a pipeline alone: pp"

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadShare:
    """The heads of a layer that a rank has.

    Where key/value heads do not go round, ranks share one: each keeps its keys and values.
    """

    queries: range
    kv: tuple[int, ...]
    """Which key/value head each of the rank's own is."""

    @classmethod
    def of(cls, mixer: Attention, shares: Sequence[float], index: int) -> HeadShare:
        """Raises Incompatible where there are fewer query heads than ranks."""
        each = mixer.heads // mixer.kv_heads
        if len(shares) <= mixer.kv_heads:
            groups = spans(mixer.kv_heads, shares, "key/value heads")[index]
            return cls(queries=range(groups.start * each, groups.stop * each), kv=tuple(groups))
        queries = spans(mixer.heads, shares, "heads")[index]
        owners = [head // each for head in queries]
        kinds = sorted(set(owners))
        if len({owners.count(kind) for kind in kinds}) > 1:
            return cls(queries=queries, kv=tuple(owners))
        return cls(queries=queries, kv=tuple(kinds))


class Shard:
    """One rank's part of a model, and where it lies in the whole.

    Raises Incompatible for a model that cannot be shared so.
    """

    def __init__(self, spec: ModelSpec, layout: Layout, rank: int) -> None:
        check_shareable(spec, layout)
        place = layout.place(rank)
        stage = layout.stages[place.stage]
        self.whole = spec
        self.stage = stage
        self.index = place.index
        self.first, self.last = place.stage == 0, place.stage == len(layout.stages) - 1
        self.split = stage.sharing != "sequence"
        """Whether weights are shared; else every rank of the stage has them all."""
        self.shares = stage.shares if self.split else (1.0,)
        self.part = self.index if self.split else 0
        self.leads = self.part == 0
        """Whether what must be added once is added here: biases of matrices whose columns are shared."""
        self.vocabulary = spans(spec.vocab_size, self.shares, "tokens of the vocabulary")[self.part]

    @property
    def parts(self) -> int:
        """Ranks among which weights are shared."""
        return len(self.shares)

    @cached_property
    def spec(self) -> ModelSpec:
        """The part as a model of its own, without what other stages have."""
        whole, stack = self.whole, self.whole.stack
        kinds = {block: self._block(block) for block in dict.fromkeys(whole.blocks)}
        own = stack.blocks[self.stage.first : self.stage.end]
        tabled = self.first or self.last
        return replace(
            whole,
            vocab_size=len(self.vocabulary) if tabled else 1,
            stack=replace(
                stack,
                blocks=tuple(kinds[block] for block in own),
                positions=stack.positions if self.first else None,
                embedding_norm=stack.embedding_norm if self.first else None,
                final_norm=stack.final_norm if self.last else None,
            ),
            token_types=whole.token_types if self.first else 0,
            head=self._head(),
            classifier=None,
        )

    def _head(self) -> Head | None:
        head = self.whole.head
        if head is None or not self.last:
            return None
        return head if self.first else replace(head, tied=True)  # its matrix lies where embeddings would

    def _block(self, block: Block) -> Block:
        if self.parts == 1:
            return block
        mixer, inner = block.mixer, block.feed_forward
        return replace(
            block,
            mixer=None if mixer is None else self._mixer(mixer),
            feed_forward=None if inner is None else self._inner(inner),
        )

    def _mixer(self, mixer: Mixer) -> Attention:
        assert isinstance(mixer, Attention)
        heads = self.heads(mixer)
        return replace(mixer, heads=len(heads.queries), kv_heads=len(heads.kv))

    def _inner(self, inner: FeedForward | Experts) -> FeedForward | Experts:
        if isinstance(inner, FeedForward):
            return replace(inner, width=len(self.columns(inner)))
        count = len(self.experts(inner))
        shared = inner.shared
        return replace(
            inner,
            count=count,
            per_token=min(inner.per_token, count),
            groups=1,
            chosen_groups=1,
            shared=None if shared is None else replace(shared, width=len(self.columns(shared))),
        )

    def heads(self, mixer: Attention) -> HeadShare:
        """Its heads of a layer."""
        return HeadShare.of(mixer, self.shares, self.part)

    def columns(self, inner: FeedForward) -> range:
        """Its hidden columns of a feed-forward."""
        return spans(inner.width, self.shares, "feed-forward columns", _LANES)[self.part]

    def experts(self, inner: Experts) -> range:
        """Its routed experts."""
        return spans(inner.count, self.shares, "experts")[self.part]


def check_shareable(spec: ModelSpec, layout: Layout) -> None:
    """Raises Incompatible for a model that several processes cannot compute so, with what can."""
    name = spec.name
    if not spec.causal or spec.encoder is not None or spec.branches or spec.stack.relative is not None:
        raise Incompatible(
            f"model {name!r} has parts beside one stack of layers", hint="leave --parallel out"
        )
    if layout.stages[-1].end != spec.layers:
        raise Incompatible(
            f"the stages have {layout.stages[-1].end} layers, model {name!r} has {spec.layers}"
        )
    if all(len(stage.shares) == 1 for stage in layout.stages):
        return
    for block in spec.blocks:
        mixer = block.mixer
        if mixer is not None and not isinstance(mixer, Attention):
            raise Incompatible(f"layers of kind {mixer.kind} in {name!r} are not shared by ranks", hint=_PIPE)
        if mixer is None:
            continue
        if isinstance(mixer.positions, Alibi) or mixer.position_queries or mixer.qk_norm == "all":
            raise Incompatible(f"the heads of model {name!r} depend on each other", hint=_PIPE)
        if "distance" in mixer.shapes(spec.width):
            raise Incompatible(f"model {name!r} has tables of distances for all heads", hint=_PIPE)


class ShardSource:
    """The tensors of one rank, cut out of a source when they are asked for (WeightSource)."""

    def __init__(self, shard: Shard, source: WeightSource) -> None:
        self._shard = shard
        self._source = source
        self._wanted = shard.spec.tensors()

    def names(self) -> Iterable[str]:
        return self._wanted

    def extras(self) -> Iterable[str]:
        """Further tensors that the rank needs whole."""
        shard = self._shard
        for i, block in enumerate(shard.whole.blocks[shard.stage.first : shard.stage.end]):
            if isinstance(block.feed_forward, Experts) and shard.parts > 1:
                yield f"layers.{i}.{ROUTER}"
                if block.feed_forward.router_bias is not None:
                    yield f"layers.{i}.{ROUTER}.bias"

    def tensor(self, name: str) -> StoredTensor:
        shard, source = self._shard, self._source
        if (match := _LAYER.fullmatch(name)) is None:
            return self._outside(name).renamed(name)
        layer, part = int(match[1]) + shard.stage.first, match[2]
        origin = f"layers.{layer}."
        if part.startswith(ROUTER):
            return source.tensor(origin + "router" + part.removeprefix(ROUTER)).renamed(name)
        stored = source.tensor(origin + part)
        if shard.parts > 1:
            stored = self._cut(stored, part, shard.whole.blocks[layer])
        return stored.renamed(name)

    def _outside(self, name: str) -> StoredTensor:
        shard, source, whole = self._shard, self._source, self._shard.whole
        if name not in ("embed", "head", "head.bias"):
            return source.tensor(name)
        if name == "embed" and not (shard.first or shard.last):
            return _made(name, np.zeros((1, whole.width), np.float32))
        if name == "embed" and not shard.first and whole.own_head:
            name = "head"
        stored = source.tensor(name)
        if shard.parts == 1:
            return stored
        return _rows(stored, np.arange(shard.vocabulary.start, shard.vocabulary.stop))

    def _cut(self, stored: StoredTensor, part: str, block: Block) -> StoredTensor:
        mixer, inner, shard = block.mixer, block.feed_forward, self._shard
        stem = part.removesuffix(".bias")
        if isinstance(mixer, Attention) and stem in _OF_HEADS:
            return self._cut_heads(stored, part, mixer)
        if isinstance(inner, Experts) and stem.startswith("experts."):
            own = shard.experts(inner)
            return _rows(stored, np.arange(own.start, own.stop))
        if isinstance(inner, Experts) and stem == "router":
            own = shard.experts(inner)
            return _rows(stored, np.arange(own.start, own.stop))
        dense = inner.shared if isinstance(inner, Experts) and stem.startswith("shared.") else inner
        if isinstance(dense, FeedForward) and stem.removeprefix("shared.") in ("gate", "up", "down"):
            columns = np.arange(shard.columns(dense).start, shard.columns(dense).stop)
            if not stem.endswith("down"):
                return _rows(stored, columns)
            return self._once(stored) if part.endswith(".bias") else _columns(stored, columns)
        return stored

    def _cut_heads(self, stored: StoredTensor, part: str, mixer: Attention) -> StoredTensor:
        heads = self._shard.heads(mixer)
        stem = part.removesuffix(".bias")
        if stem == "sinks":
            return _rows(stored, np.array(heads.queries))
        if stem.endswith("_norm") and mixer.qk_norm == "head":
            return stored
        chosen = heads.kv if stem in ("k", "v", "k_norm") else tuple(heads.queries)
        numbers = (np.array(chosen)[:, None] * mixer.head_dim + np.arange(mixer.head_dim)).reshape(-1)
        if stem != "o":
            return _rows(stored, numbers)
        return self._once(stored) if part.endswith(".bias") else _columns(stored, numbers)

    def _once(self, stored: StoredTensor) -> StoredTensor:
        """A bias that one rank adds, and the others do not."""
        return stored if self._shard.leads else _made(stored.name, np.zeros(stored.shape, np.float32))


class HeldSource:
    """Tensors in memory by name, as a rank got them (WeightSource)."""

    def __init__(self, tensors: Mapping[str, StoredTensor], extras: Iterable[str] = ()) -> None:
        self._tensors = tensors
        self._extras = frozenset(extras)

    def names(self) -> Iterable[str]:
        return [name for name in self._tensors if name not in self._extras]

    def extras(self) -> Iterable[str]:
        """See ShardSource."""
        return self._extras

    def tensor(self, name: str) -> StoredTensor:
        return self._tensors[name]


def _made(name: str, values: npt.NDArray[np.float32]) -> StoredTensor:
    data = np.ascontiguousarray(values, np.float32)
    return StoredTensor(name=name, format="F32", shape=data.shape, data=data.reshape(-1).view(np.uint8))


def _rows(stored: StoredTensor, rows: Indices) -> StoredTensor:
    """Those along the first axis, in their stored form where they are whole blocks."""
    if len(stored.shape) == 1:
        return _made(stored.name, dequantize(stored)[rows])
    data = stored.held().data.reshape(stored.shape[0], -1)
    contiguous = np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
    part = data[rows[0] : rows[0] + len(rows)] if contiguous else data[rows]
    shape = (len(rows), *stored.shape[1:])
    return StoredTensor(name=stored.name, format=stored.format, shape=shape, data=part.reshape(-1))


def _columns(stored: StoredTensor, columns: Indices) -> StoredTensor:
    """Those along the last axis: stored blocks as they are, or in float32 where a block would be cut."""
    size, block_bytes = GEOMETRY[stored.format].elements, GEOMETRY[stored.format].bytes
    blocks = columns.reshape(-1, size) if len(columns) % size == 0 else None
    if blocks is None or (blocks[:, :1] % size).any() or (blocks != blocks[:, :1] + np.arange(size)).any():
        return _made(stored.name, dequantize(stored)[..., columns])
    data = stored.held().data.reshape(*stored.shape[:-1], -1, block_bytes)[..., blocks[:, 0] // size, :]
    shape = (*stored.shape[:-1], len(columns))
    data = np.ascontiguousarray(data).reshape(-1)
    return StoredTensor(name=stored.name, format=stored.format, shape=shape, data=data)
