"""ModelSpec: what a transformer is, as data. One program reads it; nothing branches on a name.

Axis letters used here and in every shape note: B sequences, T tokens of a step, H query heads,
K key/value heads, D head size, E model width, F feed-forward width, L layers, V vocabulary,
P block (page) of the KV cache, S slots of one sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Llama 3 frequency scaling (Llama 3.1 release, `rope_scaling` of type llama3) or linear."""

    kind: Literal["llama3", "linear"] = "llama3"
    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary positions (Su et al. 2021)."""

    base: float = 10_000.0
    dim: int
    """Rotated part of each head; equals the head size in most families."""
    pairing: Literal["half", "interleaved"] = "half"
    """Which two elements turn together: (i, i + dim/2), or (2i, 2i + 1) as in Llama GGUF files."""
    scaling: RopeScaling | None = None
    frequency_factors: tuple[float, ...] | None = None
    """Per-pair divisors that a file ships (`rope_freqs`); takes the place of `scaling`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A table of position embeddings added to the token embeddings."""

    max_positions: int
    offset: int = 0


Positions = Rope | Learned | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """Normalisation and where it stands relative to its block."""

    kind: Literal["rms", "layer"] = "rms"
    eps: float = 1e-5
    placement: Literal["pre", "post"] = "pre"
    embedding: bool = False
    """Whether the embeddings are normalised too, as in BERT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The declarative description of one decoder or encoder.

    Derives parameter counts, FLOPs and KV bytes. Raises ValueError on an impossible geometry.
    """

    name: str
    family: str
    """Which mapping made this spec (`llama`, `qwen2`, `bert` ...); for people, never for branches."""
    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_width: int
    context_length: int
    positions: Positions
    norm: Norm = field(default_factory=Norm)
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    gated: bool = True
    """SwiGLU-like: down(activation(gate(x)) * up(x)); otherwise down(activation(up(x)))."""
    biases: frozenset[Literal["qkv", "out", "ffn"]] = frozenset()
    qk_norm: bool = False
    parallel_block: bool = False
    """Attention and feed-forward read the same norm and are added together (GPT-J, PaLM)."""
    tied_head: bool = True
    causal: bool = True
    token_types: int = 0
    window: int | None = None
    """Sliding attention window in tokens; None attends to all."""
    window_layers: tuple[int, ...] | None = None
    """Layers that use `window`; None means all."""

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads do not share {self.kv_heads} key/value heads evenly")
        for name in (
            "vocab_size",
            "layers",
            "width",
            "heads",
            "kv_heads",
            "head_dim",
            "ffn_width",
            "context_length",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")

    @property
    def attention(self) -> Literal["mha", "gqa", "mqa"]:
        """Multi-head, grouped-query or multi-query, derived from the head counts."""
        if self.kv_heads == self.heads:
            return "mha"
        return "mqa" if self.kv_heads == 1 else "gqa"

    @property
    def block_parameters(self) -> int:
        """Parameters of one layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        n = self.width * (q + 2 * kv) + q * self.width
        n += self.width * self.ffn_width * (3 if self.gated else 2)
        norm_size = self.width * (1 if self.norm.kind == "rms" else 2)
        n += norm_size * (1 if self.parallel_block else 2)
        n += 2 * self.head_dim if self.qk_norm else 0
        if "qkv" in self.biases:
            n += q + 2 * kv
        if "out" in self.biases:
            n += self.width
        if "ffn" in self.biases:
            n += self.ffn_width * (2 if self.gated else 1) + self.width
        return n

    @property
    def parameters(self) -> int:
        """All parameters; a tied head counts once."""
        n = self.vocab_size * self.width + self.layers * self.block_parameters
        norm_size = self.width * (1 if self.norm.kind == "rms" else 2)
        n += norm_size * (int(self.norm.placement == "pre") + int(self.norm.embedding))
        if isinstance(self.positions, Learned):
            n += (self.positions.max_positions + self.positions.offset) * self.width
        n += self.token_types * self.width
        if self.causal and not self.tied_head:
            n += self.vocab_size * self.width
        return n

    def kv_bytes_per_token(self, element_bytes: float = 2) -> int:
        """Bytes of keys and values that one token adds over all layers."""
        return round(2 * self.layers * self.kv_heads * self.head_dim * element_bytes)

    def flops(self, tokens: int, context: int, logit_rows: int | None = None) -> int:
        """Multiply-adds times two for a step of `tokens` new tokens that each see about `context` slots.

        Args:
            tokens: new tokens computed.
            context: mean number of slots each new token attends to.
            logit_rows: rows through the head; None means all tokens.
        """
        matrices = self.block_parameters * self.layers
        attention = 2 * self.layers * self.heads * self.head_dim * context
        head = self.vocab_size * self.width * (tokens if logit_rows is None else logit_rows)
        return 2 * (tokens * (matrices + attention) + head)
