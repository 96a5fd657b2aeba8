"""In how many bytes the kernels keep keys and values, and a look at what they keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.errors import Incompatible
from pentad.execution.mixers import LatentAttention
from pentad.execution.native.library import KernelLibrary
from pentad.execution.spec import Attention, ModelSpec

BLOCK_SIZE: Final = 16
"""Tokens of a KV block; the kernels know no other."""
KV_DTYPES: Final = ("auto", "bfloat16", "int8", "int8-int4", "int4")
"""Values of the option `kv_dtype`; auto is bfloat16, and int8-int4 keys in 8 bits with values in 4."""
KV_ELEMENT_BYTES: Final = 2
"""Bytes of a cached number in bfloat16."""
_SCORE_BYTES: Final = 8
"""Of one slot, layer and key/value head, where attention scores are kept."""
_STEP_BYTES: Final = 2
"""Of a step, or a least number, of codes."""
_GROUP: Final = 32
"""Numbers that share a step and a least one in 4 bits; in 8 bits, those of a token and head share a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KVBits:
    """Bits of cached numbers without their share of a step."""

    keys: int
    values: int

    @property
    def coded(self) -> bool:
        return self.keys != 16


_BITS: Final = {
    "int8": KVBits(keys=8, values=8),
    "int8-int4": KVBits(keys=8, values=4),
    "int4": KVBits(keys=4, values=4),
}


def kv_bits(kv_dtype: str) -> KVBits:
    """In how many bits the kernels keep keys and values.

    Raises:
        Incompatible: a form that the kernels cannot keep.
    """
    if kv_dtype not in KV_DTYPES:
        raise Incompatible(
            f"the native kernels cannot keep keys and values in {kv_dtype!r}",
            hint=f"set kv_dtype to one of {', '.join(KV_DTYPES)}",
            param="kv_dtype",
        )
    return _BITS.get(kv_dtype, KVBits(keys=16, values=16))


def _element_bytes(bits: int, head_dim: int) -> float:
    if bits == 4:
        return 0.5 + 2 * _STEP_BYTES / _GROUP
    return 1 + _STEP_BYTES / head_dim


def kv_element_bytes(spec: ModelSpec, kv_dtype: str, attention_scores: bool = False) -> float:
    """Bytes of a cached number on average; its share of what is kept of a token and head included.

    Raises:
        Incompatible: codes for what latent attention keeps.
    """
    bits = kv_bits(kv_dtype)
    latent = any(isinstance(block.mixer, LatentAttention) for block in spec.blocks)
    if latent and bits.coded:
        raise Incompatible(
            f"{spec.name!r} keeps one vector for all heads, on the native kernels not in {kv_dtype!r}",
            hint="set kv_dtype to auto",
            param="kv_dtype",
        )
    scores = _SCORE_BYTES / (2 * spec.head_dim) if attention_scores else 0
    attends = any(isinstance(block.mixer, Attention) for block in spec.blocks)
    if not bits.coded or not attends:
        return KV_ELEMENT_BYTES + scores
    coded = (_element_bytes(each, spec.head_dim) for each in (bits.keys, bits.values))
    return sum(coded) / 2 + scores


def check_counted(spec: ModelSpec, *, attention_scores: bool) -> None:
    """Raises Incompatible where attention is to be counted and not every layer attends by equal heads."""
    if attention_scores and not spec.by_head:
        raise Incompatible(
            f"attention is not counted in model {spec.name!r}, whose layers do not all keep equal heads",
            hint="set --kv-policy keep-all",
        )


def check_key_centres(spec: ModelSpec, kv_dtype: str, *, key_centres: bool) -> None:
    """Raises Incompatible for keys with a bias in codes that would have to hold all of it."""
    mixers = (block.mixer for block in spec.blocks)
    biased = any(isinstance(m, Attention) and m.qkv_bias and m.key_bias for m in mixers)
    if not key_centres and biased and kv_bits(kv_dtype).coded:
        raise Incompatible(
            f"keys of {spec.name!r} have a bias, too large for {kv_dtype} codes where a KV policy moves them",
            hint="set kv_dtype to auto, or --kv-policy keep-all",
            param="kv_dtype",
        )


def code_row(library: KernelLibrary, row: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], float]:
    """The codes [D] of one token's key or value, and their step, as the kernels make them."""
    values = np.ascontiguousarray(row, np.float32)
    codes, step = np.empty(len(values), np.int8), np.zeros(1, np.uint16)
    library.functions.pentad_code_row(values.ctypes.data, len(values), codes.ctypes.data, step.ctypes.data)
    return codes, float(_widened(step)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedBlock:
    """What a block holds of one layer and head, as attention reads it."""

    keys: npt.NDArray[np.float32]
    """[16, D], of coded blocks turned by the kernels' rotation."""
    values: npt.NDArray[np.float32]
    """[16, D]"""


def cached_block(
    library: KernelLibrary, model: int, spec: ModelSpec, *, layer: int, head: int, block: int, place: int
) -> CachedBlock:
    """Reads one block, as the one with number `place` of its text.

    Raises:
        ValueError: there is none of that number.
    """
    if not spec.by_head:
        raise ValueError(f"the layers of {spec.name!r} do not all keep keys and values of equal heads")
    dim = spec.head_dim
    page = np.empty(2 * BLOCK_SIZE * dim, np.uint16)
    if library.functions.pentad_read_block(model, layer, head, block, place, page.ctypes.data):
        raise ValueError(f"there is no block {block} of layer {layer} and head {head} at place {place}")
    keys, values = np.split(_widened(page), 2)
    return CachedBlock(
        keys=keys.reshape(dim // 2, BLOCK_SIZE, 2).transpose(1, 0, 2).reshape(BLOCK_SIZE, dim),
        values=values.reshape(BLOCK_SIZE // 2, dim, 2).transpose(0, 2, 1).reshape(BLOCK_SIZE, dim),
    )


def _widened(halves: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (halves.astype(np.uint32) << 16).view(np.float32)
