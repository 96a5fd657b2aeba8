"""Blocks of 32 numbers with one fp16 scale, and a minimum where the name ends in 1.

Source: the block layouts of ggml (`ggml-common.h`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pentad.execution.formats.base import BlockFormat, Bytes, Codes, Integers, bits, half, nibbles


def _signed(codes: Bytes, middle: int) -> Integers:
    """Codes less the one that stands for 0."""
    found: Integers = codes.view(np.int8) - np.int8(middle)
    return found


def _with_fifth_bits(blocks: Bytes, at: int) -> Bytes:
    """Nibbles behind a word of 32 bits, of which bit i is worth 16 in number i."""
    low = nibbles(blocks[:, at + 4 :], 16)
    return low | np.left_shift(bits(blocks[:, at : at + 4])[:, None, :], np.uint8(4))


def _q4_0(blocks: Bytes) -> Codes:
    return Codes(codes=_signed(nibbles(blocks[:, 2:], 16), 8), scale=half(blocks, 0))


def _q4_1(blocks: Bytes) -> Codes:
    codes = nibbles(blocks[:, 4:], 16).view(np.int8)
    return Codes(codes=codes, scale=half(blocks, 0), offset=half(blocks, 2))


def _q5_0(blocks: Bytes) -> Codes:
    return Codes(codes=_signed(_with_fifth_bits(blocks, 2), 16), scale=half(blocks, 0))


def _q5_1(blocks: Bytes) -> Codes:
    codes = _with_fifth_bits(blocks, 4).view(np.int8)
    return Codes(codes=codes, scale=half(blocks, 0), offset=half(blocks, 2))


def _q8_0(blocks: Bytes) -> Codes:
    return Codes(codes=blocks[:, None, 2:].view(np.int8), scale=half(blocks, 0))


def _q8_1(blocks: Bytes) -> Codes:
    """Behind the scale stands scale times the sum of the codes, which is no part of the numbers."""
    return Codes(codes=blocks[:, None, 4:].view(np.int8), scale=half(blocks, 0))


BLOCKS_OF_32: Final = (
    BlockFormat(name="Q4_0", ggml=2, elements=32, bytes=18, decode=_q4_0),
    BlockFormat(name="Q4_1", ggml=3, elements=32, bytes=20, decode=_q4_1),
    BlockFormat(name="Q5_0", ggml=6, elements=32, bytes=22, decode=_q5_0),
    BlockFormat(name="Q5_1", ggml=7, elements=32, bytes=24, decode=_q5_1),
    BlockFormat(name="Q8_0", ggml=8, elements=32, bytes=34, decode=_q8_0),
    BlockFormat(name="Q8_1", ggml=9, elements=32, bytes=36, decode=_q8_1),
)
