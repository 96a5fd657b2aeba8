"""How a layer mixes tokens, as data: attention, latent attention, recurrence; and norms.

A mixer names its tensors and their shapes, and says what it adds to a cache.

Axis letters: H query heads, K key/value heads, D head size, E model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pentad.execution.positions import Alibi, Growth, ProjectedDistances, Rope, Rotary, Sight
from pentad.execution.recurrences import Recurrent as Recurrent
from pentad.execution.recurrences import ShortConvolution as ShortConvolution
from pentad.execution.shapes import Shape as Shape
from pentad.execution.shapes import Shapes as Shapes
from pentad.execution.shapes import at_least_one as at_least_one


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """One kind of normalisation."""

    kind: Literal["rms", "layer"] = "rms"
    eps: float = 1e-5
    bias: bool = True
    """Whether a layer norm has a shift; RMS norms have none."""
    offset: float = 0.0
    """Added to the stored scale: 1 in Gemma's published tensors."""

    def shapes(self, name: str, size: int) -> Shapes:
        """Its tensors under that name."""
        found: Shapes = {name: (size,)}
        if self.kind == "layer" and self.bias:
            found[name + ".bias"] = (size,)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRow:
    """What a layer keeps of one token: keys of `heads` heads, and their values."""

    heads: int
    key_dim: int
    value_dim: int
    shared: bool = False
    """Whether values are the first numbers of the keys and stored with them, once."""

    @property
    def elements(self) -> int:
        return self.heads * (self.key_dim if self.shared else self.key_dim + self.value_dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Softmax attention with its own keys and values: multi-head, grouped-query or multi-query."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    """How many tokens are seen, the own one included; None: all."""
    chunk: int | None = None
    """Tokens of the chunks that a text is cut into, none of which sees another; None: it is not (Llama 4)."""
    positions: Rotary = None
    growth: Growth | None = None
    """How queries grow with their position."""
    qkv_bias: bool = False
    out_bias: bool = False
    key_bias: bool = True
    """Whether keys have the bias that `qkv_bias` gives queries and values; Whisper's have none."""
    qk_norm: Literal["head", "all", "each"] | None = None
    """Norms of queries and keys: per head (Qwen 3), over all (OLMo 2), or per head with scales of its own
    (Cohere)."""
    qk_norm_kind: Literal["rms", "layer"] = "rms"
    """A layer norm here has no shift."""
    qk_norm_last: bool = False
    """Whether they stand behind the rotation (Hunyuan, Llama 4)."""
    qkv_clip: float | None = None
    """Queries, keys and values are cut at plus and minus this (MPT)."""
    scale: float | None = None
    """Factor of the scores; None: head_dim ** -0.5."""
    score_cap: float | None = None
    """Scores s become cap * tanh(s / cap) (Gemma 2)."""
    output_gate: bool = False
    """What attention gives is multiplied by sigmoid(gate x) before its last matrix (Qwen3-Next)."""
    sinks: bool = False
    """A learned score per head that takes weight and gives nothing (gpt-oss)."""
    position_queries: int | None = None
    """Queries are made of a row of a table that has so many, by position, and not of the hidden state
    (PanGu-alpha's query layer)."""

    def __post_init__(self) -> None:
        for name in ("heads", "kv_heads", "head_dim"):
            at_least_one(name, getattr(self, name))
        assert self.sight  # it checks itself
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads do not share {self.kv_heads} key/value heads evenly")

    @property
    def kind(self) -> str:
        """`mha`, `gqa` or `mqa`, by the counts of heads."""
        if self.kv_heads == self.heads:
            return "mha"
        return "mqa" if self.kv_heads == 1 else "gqa"

    @property
    def sight(self) -> Sight:
        """How far back a token sees."""
        return Sight(self.window, self.chunk)

    @property
    def plain_scores(self) -> bool:
        """Whether slots are weighed by the softmax of scaled products alone."""
        special = self.scale is not None or self.score_cap is not None or self.sinks
        return not special and not self.counts_slots

    @property
    def counts_slots(self) -> bool:
        """Whether scores depend on where slots lie, beside how keys were turned."""
        dual = isinstance(self.positions, Rope) and self.positions.dual is not None
        return dual or isinstance(self.positions, Alibi | ProjectedDistances)

    @property
    def rotation(self) -> Rope | None:
        """How it turns queries and keys, if it does."""
        return self.positions if isinstance(self.positions, Rope) else None

    @property
    def cache_row(self) -> CacheRow:
        """What it keeps of a token."""
        return CacheRow(heads=self.kv_heads, key_dim=self.head_dim, value_dim=self.head_dim)

    @property
    def kv_elements(self) -> int:
        """Numbers that a token adds to the cache."""
        return self.cache_row.elements

    @property
    def state_elements(self) -> int:
        """Numbers that a sequence holds whatever its length."""
        return 0

    def pair_products(self) -> int:
        """Multiply-adds for a query token and a slot that it sees."""
        parts = 3 if isinstance(self.positions, ProjectedDistances) else 2
        return parts * self.heads * self.head_dim

    @property
    def tables(self) -> frozenset[str]:
        """Tensors that no token is multiplied with: rows are looked up, or made once for every distance."""
        return frozenset({"position_queries", "distance"})

    def shapes(self, width: int, source_width: int | None = None) -> Shapes:
        """Its tensors in a stack of that width; keys and values may be made of another one."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        source = width if source_width is None else source_width
        found: Shapes = {"q": (q, width), "k": (kv, source), "v": (kv, source), "o": (width, q)}
        if self.qkv_bias:
            found |= {"q.bias": (q,), "v.bias": (kv,)} | ({"k.bias": (kv,)} if self.key_bias else {})
        if self.out_bias:
            found["o.bias"] = (width,)
        if self.output_gate:
            found["attn_gate"] = (q, width)
        if self.qk_norm is not None:
            own = self.qk_norm == "head"
            found |= {"q_norm": (self.head_dim if own else q,), "k_norm": (self.head_dim if own else kv,)}
        if self.sinks:
            found["sinks"] = (self.heads,)
        if self.position_queries is not None:
            found["position_queries"] = (self.position_queries, width)
        if isinstance(self.positions, ProjectedDistances):
            found |= {"distance": (q, width), "content_shift": (q,), "distance_shift": (q,)}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: what is cached is one vector per token (DeepSeek-V2, section 2.1).

    Keys and values of all heads are made of a vector of `kv_rank` numbers; beside it stands one rotated
    key of `rope.dim` numbers that all heads share. Rotated numbers stand behind the others.
    """

    heads: int
    kv_rank: int
    nope_dim: int
    """Of a head's query and key, the part that isn't rotated."""
    value_dim: int
    rope: Rope
    q_rank: int | None = None
    """Queries are made of a vector of so many numbers; None: of the hidden state."""
    scale: float | None = None
    """Factor of the scores; None: (nope_dim + rope.dim) ** -0.5."""
    norm_eps: float = 1e-6
    """Of the RMS norms of both vectors."""

    def __post_init__(self) -> None:
        for name in ("heads", "kv_rank", "nope_dim", "value_dim"):
            at_least_one(name, getattr(self, name))
        if self.q_rank is not None:
            at_least_one("q_rank", self.q_rank)

    @property
    def kind(self) -> str:
        return "latent"

    @property
    def window(self) -> int | None:
        return None

    @property
    def rotation(self) -> Rope | None:
        return self.rope

    @property
    def key_dim(self) -> int:
        """Numbers of a head's query and key."""
        return self.nope_dim + self.rope.dim

    @property
    def score_scale(self) -> float:
        """Factor of the scores."""
        return self.key_dim**-0.5 if self.scale is None else self.scale

    @property
    def cache_row(self) -> CacheRow:
        """One key for all heads, the vector in front; the values are made of the vector."""
        return CacheRow(heads=1, key_dim=self.kv_rank + self.rope.dim, value_dim=self.kv_rank, shared=True)

    @property
    def kv_elements(self) -> int:
        return self.cache_row.elements

    @property
    def state_elements(self) -> int:
        return 0

    def pair_products(self) -> int:
        """Multiply-adds for a query token and a slot that it sees, as heads read what is kept of it.

        A long chunk of a prompt takes fewer on PyTorch, which makes keys and values of its slots there
        (torch/latent.py).
        """
        return self.heads * (self.cache_row.key_dim + self.kv_rank)

    def shapes(self, width: int) -> Shapes:
        query = self.heads * self.key_dim
        found: Shapes = {"q": (query, width)}
        if self.q_rank is not None:
            found = {"q_down": (self.q_rank, width), "q_norm": (self.q_rank,), "q": (query, self.q_rank)}
        return found | {
            "kv_down": (self.kv_rank + self.rope.dim, width),
            "kv_norm": (self.kv_rank,),
            "k_up": (self.heads * self.nope_dim, self.kv_rank),
            "v_up": (self.heads * self.value_dim, self.kv_rank),
            "o": (width, self.heads * self.value_dim),
        }


Mixer: TypeAlias = Attention | LatentAttention | Recurrent | ShortConvolution
