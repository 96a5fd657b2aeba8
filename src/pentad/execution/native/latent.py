"""Latent attention on the kernels: what they can do of it, and its matrix of keys as they absorb it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.execution.mixers import LatentAttention
from pentad.execution.quant import dequantize
from pentad.execution.weights import MadeTensor, StoredTensor, TensorFormat

_LANES: Final = 32
_MOST_KEPT: Final = 640
"""Numbers that are kept of a token at most (kMostDim in pages.h)."""
ABSORBED: Final = "k_up"
"""The tensor whose matrices of heads are packed transposed."""


def latent_limits(mixer: LatentAttention) -> Iterator[str]:
    """What of a layer's latent attention the kernels cannot do, behind the layer's name."""
    kept = mixer.cache_row.key_dim
    sizes = {
        "kv_rank": mixer.kv_rank,
        "nope_dim": mixer.nope_dim,
        "rope.dim": mixer.rope.dim,
        "value_dim": mixer.value_dim,
        "q_rank": mixer.q_rank or _LANES,
    }
    for name, size in sizes.items():
        if size % _LANES:
            yield f"has latent attention with a {name} of {size}, no multiple of {_LANES}"
    if kept > _MOST_KEPT:
        yield f"keeps {kept} numbers of a token, more than {_MOST_KEPT}"
    if max(mixer.nope_dim, mixer.value_dim) > kept:
        yield "has heads of more numbers than it keeps of a token"
    if mixer.rope.dual is not None:
        yield "remaps positions of latent attention by chunks"


def packed_format(name: str, format: TensorFormat) -> TensorFormat:
    """The format that a layer's matrix is packed from."""
    return "F32" if name == ABSORBED else format


def absorbed(stored: StoredTensor, heads: int) -> StoredTensor:
    """`k_up` [H nope, R] as what heads multiply their queries with: [H R, nope] in float32, made on use.

    The kernels pack it in 8 bits whatever it was stored in, since blocks of a row cannot be read along
    columns.
    """
    rows, rank = stored.shape
    size = rows // heads

    def make() -> npt.NDArray[np.uint8]:
        values = dequantize(stored.held()).astype(np.float32, copy=False).reshape(heads, size, rank)
        return np.ascontiguousarray(values.swapaxes(1, 2)).reshape(-1).view(np.uint8)

    shape = (heads * rank, size)
    return MadeTensor(name=stored.name, format="F32", shape=shape, make=make, origins=stored.origins)
