"""Blocks of 32 numbers with a scale in float32: what quantized safetensors hold, told row by row.

Such files keep codes, scales and zero points in tensors of their own, each method in its own order
(`model/files/quantized/`); these blocks have them side by side and lose nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pentad.execution.formats.base import BlockFormat, Bytes, Codes, Floats, Numbers, nibbles

ELEMENTS: Final = 32
NF4_LEVELS: Final = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Quantiles of a normal distribution. Source: QLoRA (Dettmers et al. 2023), appendix E."""


def packed_nibbles(codes: Bytes) -> Bytes:
    """Codes of 4 bits [n, 32], number i beside number i + 16: [n, 16]."""
    found: Bytes = codes[:, :16] | np.left_shift(codes[:, 16:], np.uint8(4))
    return found


def scaled_blocks(scale: Floats, *parts: Bytes) -> Bytes:
    """Blocks of a scale [n] and what follows it [n, bytes]: [n, all bytes]."""
    first = np.ascontiguousarray(scale, np.float32).reshape(-1, 1).view(np.uint8)
    return np.concatenate((first, *parts), axis=1)


def block_scales(blocks: Bytes) -> Floats:
    """[n, 1]"""
    return np.ascontiguousarray(blocks[:, :4]).view(np.float32)


def block_zeros(blocks: Bytes) -> Floats:
    """The code that stands for 0 in each block of UINT4: [n, 1]."""
    return np.ascontiguousarray(blocks[:, 4:8]).view(np.int32).astype(np.float32)


def _int4(blocks: Bytes) -> Codes:
    """Codes less 8."""
    codes = nibbles(blocks[:, 4:], 16).view(np.int8) - np.int8(8)
    return Codes(codes=codes, scale=block_scales(blocks))


def _uint4(blocks: Bytes) -> Codes:
    """Codes less the block's zero point."""
    zero = np.ascontiguousarray(blocks[:, 4:8]).view(np.int32).astype(np.int8)
    codes = nibbles(blocks[:, 8:], 16).view(np.int8) - zero[:, :, None]
    return Codes(codes=codes, scale=block_scales(blocks))


def _int8(blocks: Bytes) -> Codes:
    return Codes(codes=blocks[:, None, 4:].view(np.int8), scale=block_scales(blocks))


def e4m3_numbers(codes: Bytes) -> Floats:
    """8-bit floats of 4 exponent and 3 mantissa bits, without infinities (`F8_E4M3`, OCP OFP8)."""
    return _E4M3[codes]


def _e4m3_table() -> Floats:
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    size = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    size[code & 127 == 127] = np.nan
    found: Floats = np.where(code >= 128, -size, size).astype(np.float32)
    return found


_E4M3: Final = _e4m3_table()


def _fp8(blocks: Bytes) -> Numbers:
    return Numbers(numbers=e4m3_numbers(blocks[:, 4:]) * block_scales(blocks))


def _nf4(blocks: Bytes) -> Numbers:
    levels = np.array(NF4_LEVELS, np.float32)
    return Numbers(numbers=levels[nibbles(blocks[:, 4:], 16)[:, 0]] * block_scales(blocks))


SCALED: Final = (
    BlockFormat(name="INT4", ggml=None, elements=ELEMENTS, bytes=20, decode=_int4),
    BlockFormat(name="UINT4", ggml=None, elements=ELEMENTS, bytes=24, decode=_uint4),
    BlockFormat(name="INT8", ggml=None, elements=ELEMENTS, bytes=36, decode=_int8),
    BlockFormat(name="FP8", ggml=None, elements=ELEMENTS, bytes=36, decode=_fp8),
    BlockFormat(name="NF4", ggml=None, elements=ELEMENTS, bytes=20, decode=_nf4),
)
