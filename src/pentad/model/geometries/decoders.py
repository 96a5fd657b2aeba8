"""Decoders whose layers are alike, from the sizes that their papers' tables have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pentad.execution.mixers import Norm
from pentad.execution.positions import Learned, ProjectedDistances, Rope
from pentad.execution.spec import ModelSpec
from pentad.execution.uniform import uniform_spec

Build = Callable[[str], ModelSpec]

BAND: Final = 128
"""Tokens that a banded layer sees."""
_CONTEXT: Final = 2048
_EVERY_BIAS: Final = frozenset({"qkv", "out", "ffn"})


def _decoder(family: str, layers: int, width: int, heads: int, **parts: Any) -> Build:
    """Four times as wide feed-forwards; as many key heads as queries, which fill the width."""
    sizes: dict[str, Any] = {
        "family": family,
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": width // heads,
        "ffn_width": 4 * width,
        "context_length": _CONTEXT,
    }
    return lambda name: uniform_spec(name=name, **(sizes | parts))


def gpt(layers: int, width: int, heads: int, *, vocab: int, **parts: Any) -> Build:
    """GPT-2's block: learned positions, layer norms and biases everywhere, a plain GELU, a tied head."""
    block: dict[str, Any] = {
        "vocab_size": vocab,
        "positions": Learned(max_positions=parts.get("context_length", _CONTEXT)),
        "norm": Norm(kind="layer"),
        "activation": "gelu_tanh",
        "gated": False,
        "biases": _EVERY_BIAS,
    }
    return _decoder("gpt2", layers, width, heads, **(block | parts))


def gpt3(layers: int, width: int, heads: int) -> Build:
    """The same where every other layer sees a band of tokens."""
    return gpt(layers, width, heads, vocab=50_257, window=BAND, window_layers=range(1, layers, 2))


def gopher(layers: int, width: int, heads: int, head_dim: int) -> Build:
    """RMSNorm, Transformer-XL's distances, a plain GELU; 32 thousand tokens."""
    return _decoder(
        "gopher",
        layers,
        width,
        heads,
        head_dim=head_dim,
        vocab_size=32_000,
        positions=ProjectedDistances(),
        activation="gelu_tanh",
        gated=False,
        biases=frozenset({"ffn"}),
    )


def palm(layers: int, width: int, heads: int) -> Build:
    """Attention and a SwiGLU feed-forward side by side behind one norm, one key head of 256 numbers."""
    return _decoder(
        "palm",
        layers,
        width,
        heads,
        kv_heads=1,
        head_dim=256,
        vocab_size=256_000,
        positions=Rope(dim=256),
        norm=Norm(kind="layer", bias=False),
        parallel_block=True,
    )
