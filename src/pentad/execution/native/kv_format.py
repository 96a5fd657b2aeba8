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
KV_DTYPES: Final = ("auto", "bfloat16", "int8")
"""Values of the option `kv_dtype`; auto is bfloat16."""
KV_ELEMENT_BYTES: Final = 2
"""Bytes of a cached number in bfloat16."""
_SCORE_BYTES: Final = 8
"""Of one slot, layer and key/value head, where attention scores are kept."""
_STEP_BYTES: Final = 2
"""Behind the codes of a token's key in one head, and behind those of its value."""


def kv_bits(kv_dtype: str) -> int:
    """Bits of a cached number without its share of a step.

    Raises:
        Incompatible: a form that the kernels cannot keep.
    """
    if kv_dtype not in KV_DTYPES:
        raise Incompatible(
            f"the native kernels cannot keep keys and values in {kv_dtype!r}",
            hint=f"set kv_dtype to one of {', '.join(KV_DTYPES)}",
            param="kv_dtype",
        )
    return 8 if kv_dtype == "int8" else 16


def kv_element_bytes(spec: ModelSpec, kv_dtype: str, attention_scores: bool = False) -> float:
    """Bytes of a cached number; its share of what is kept once per token and head included.

    Raises:
        Incompatible: codes of 8 bits for what latent attention keeps.
    """
    latent = any(isinstance(block.mixer, LatentAttention) for block in spec.blocks)
    if latent and kv_bits(kv_dtype) != 16:
        raise Incompatible(
            f"{spec.name!r} keeps one vector for all heads, on the native kernels not in {kv_dtype!r}",
            hint="set kv_dtype to auto",
            param="kv_dtype",
        )
    scores = _SCORE_BYTES / (2 * spec.head_dim) if attention_scores else 0
    attends = any(isinstance(block.mixer, Attention) for block in spec.blocks)
    if kv_bits(kv_dtype) == 16 or not attends:
        return KV_ELEMENT_BYTES + scores
    return 1 + _STEP_BYTES / spec.head_dim + scores


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
    if not key_centres and biased and kv_bits(kv_dtype) == 8:
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
