"""I-quants: codes of 8 or 4 numbers name points of a grid (grids.py); signs and scales stand apart.

Their numbers are integers times a scale as everywhere: points of the grids are small integers, and the
shift of IQ1 by an eighth makes integers of eight times its points.

Source: the block layouts of ggml (`ggml-common.h`, `dequantize_row_iq*`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.base import (
    BlockFormat,
    Bytes,
    Codes,
    Floats,
    Integers,
    bits,
    half,
    nibbles,
    words,
)
from pentad.execution.formats.grids import grid

Indexes = npt.NDArray[np.uint32]

IQ4_LEVELS: Final = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the sixteen codes of IQ4 stand for."""


def _signed(points: Integers, negative: npt.NDArray[np.uint8]) -> Integers:
    """Points with the sign turned where the bit is 1."""
    found: Integers = points * (np.int8(1) - np.int8(2) * negative.reshape(points.shape).view(np.int8))
    return found


def _seven_signs(word: Indexes) -> Bytes:
    """Signs of four times 8 numbers from the low 28 bits: [n, k] to [n, k, 32]. The eighth evens them."""
    seven = (word[..., None] >> np.array([0, 7, 14, 21], np.uint32)) & np.uint32(127)
    return _even(seven).reshape(*word.shape, 32)


def _even(seven: Indexes) -> Bytes:
    """Seven bits, and an eighth so that their sum is even: [...] to [..., 8]."""
    single = ((seven[..., None] >> np.arange(7, dtype=np.uint32)) & np.uint32(1)).astype(np.uint8)
    return np.concatenate((single, single.sum(axis=-1, keepdims=True, dtype=np.uint8) & 1), axis=-1)


def _pairs(packed: Bytes) -> Floats:
    """Two 4-bit scales a byte, the low half first: [n, b] to [n, 2 b]."""
    return nibbles(packed, 1).reshape(len(packed), -1).astype(np.float32)


def _iq2_xxs(blocks: Bytes) -> Codes:
    """Of each 32 numbers: four bytes of points, then 28 bits of signs and 4 of scale."""
    word = words(blocks, 2, 16, np.uint32).reshape(len(blocks), 8, 2)
    points = grid("IQ2_XXS")[np.ascontiguousarray(word[..., 0]).view(np.uint8)].reshape(len(blocks), 8, 32)
    scale = half(blocks, 0) * (np.float32(0.5) + (word[..., 1] >> 28).astype(np.float32)) * np.float32(0.25)
    return Codes(codes=_signed(points, _seven_signs(word[..., 1])), scale=scale)


def _iq2_xs(blocks: Bytes) -> Codes:
    """Words of 9 bits for a point and 7 for its signs, then 8 bytes of scales."""
    word = words(blocks, 2, 32, np.uint16)
    points = grid("IQ2_XS")[word & 511].reshape(len(blocks), 16, 16)
    scale = half(blocks, 0) * (np.float32(0.5) + _pairs(blocks[:, 66:74])) * np.float32(0.25)
    return Codes(codes=_signed(points, _even(word >> np.uint32(9))), scale=scale)


def _iq2_s(blocks: Bytes) -> Codes:
    """Low bytes of points, signs, upper bits of points, scales."""
    high = _two_bits(blocks[:, 66:74])
    points = grid("IQ2_S")[blocks[:, 2:34] | high << np.uint16(8)].reshape(len(blocks), 16, 16)
    scale = half(blocks, 0) * (np.float32(0.5) + _pairs(blocks[:, 74:82])) * np.float32(0.25)
    return Codes(codes=_signed(points, bits(blocks[:, 34:66])), scale=scale)


def _two_bits(packed: Bytes) -> npt.NDArray[np.uint16]:
    """Four 2-bit numbers a byte, lowest first: [n, b] to [n, 4 b]."""
    shifts = np.array([0, 2, 4, 6], np.uint8)
    return ((packed[:, :, None] >> shifts) & np.uint8(3)).reshape(len(packed), -1).astype(np.uint16)


def _iq3_xxs(blocks: Bytes) -> Codes:
    """64 bytes of points, then for each 32 numbers 28 bits of signs and 4 of scale."""
    points = grid("IQ3_XXS")[blocks[:, 2:66]].reshape(len(blocks), 8, 32)
    word = words(blocks, 66, 8, np.uint32)
    scale = half(blocks, 0) * (np.float32(0.5) + (word >> 28).astype(np.float32)) * np.float32(0.5)
    return Codes(codes=_signed(points, _seven_signs(word)), scale=scale)


def _iq3_s(blocks: Bytes) -> Codes:
    """Low bytes of points, their ninth bits, signs, scales."""
    index = blocks[:, 2:66] | bits(blocks[:, 66:74]).astype(np.uint16) << np.uint16(8)
    points = grid("IQ3_S")[index].reshape(len(blocks), 8, 32)
    scale = half(blocks, 0) * (1 + 2 * _pairs(blocks[:, 106:110]))
    return Codes(codes=_signed(points, bits(blocks[:, 74:106])), scale=scale)


def _shifted(points: Integers, minus: npt.NDArray[np.bool_]) -> Integers:
    """Eight times (point + 1/8), or - 1/8 where said."""
    found: Integers = points * np.int8(8) + np.where(minus, np.int8(-1), np.int8(1))
    return found


def _iq1_s(blocks: Bytes) -> Codes:
    """Low bytes of points; then words: four times 3 upper bits, 3 of scale, the sign of the shift."""
    word = words(blocks, 34, 8, np.uint16)
    high = ((word[..., None] >> np.array([0, 3, 6, 9], np.uint32)) & 7).reshape(len(blocks), 32)
    points = grid("IQ1_S")[blocks[:, 2:34] | high << 8].reshape(len(blocks), 8, 32)
    scale = half(blocks, 0) * (2 * ((word >> 12) & 7) + 1).astype(np.float32)
    return Codes(codes=_shifted(points, (word >> 15 == 1)[..., None]), scale=scale * np.float32(1 / 8))


def _iq1_m(blocks: Bytes) -> Codes:
    """Low bytes of points; nibbles of 3 upper bits and the shift's sign; four words of scales.

    The upper four bits of these words together are the scale of the scales, in fp16.
    """
    word = words(blocks, 48, 4, np.uint16)
    single = np.bitwise_or.reduce(word >> 12 << np.array([0, 4, 8, 12], np.uint32), axis=1, keepdims=True)
    whole = single.astype(np.uint16).view(np.float16).astype(np.float32)
    scales = ((word[..., None] >> np.array([0, 3, 6, 9], np.uint32)) & 7).reshape(len(blocks), 16)
    upper = nibbles(blocks[:, 32:48], 1).reshape(len(blocks), 32)
    points = grid("IQ1_S")[blocks[:, :32] | (upper & 7).astype(np.uint16) << np.uint16(8)]
    codes = _shifted(points, (upper >= 8)[..., None]).reshape(len(blocks), 16, 16)
    return Codes(codes=codes, scale=whole * (2 * scales + 1).astype(np.float32) * np.float32(1 / 8))


def _levels(codes: Bytes) -> Integers:
    found: Integers = np.array(IQ4_LEVELS, np.int8)[codes]
    return found


def _iq4_nl(blocks: Bytes) -> Codes:
    return Codes(codes=_levels(nibbles(blocks[:, 2:], 16)), scale=half(blocks, 0))


def _iq4_xs(blocks: Bytes) -> Codes:
    """The scale, upper bits of eight 6-bit scales, their low halves, the codes."""
    high = _two_bits(blocks[:, 2:4]).astype(np.float32)
    scales = _pairs(blocks[:, 4:8]) + 16 * high - 32
    return Codes(codes=_levels(nibbles(blocks[:, 8:], 16)), scale=half(blocks, 0) * scales)


I_QUANTS: Final = (
    BlockFormat(name="IQ1_S", ggml=19, elements=256, bytes=50, decode=_iq1_s),
    BlockFormat(name="IQ1_M", ggml=29, elements=256, bytes=56, decode=_iq1_m),
    BlockFormat(name="IQ2_XXS", ggml=16, elements=256, bytes=66, decode=_iq2_xxs),
    BlockFormat(name="IQ2_XS", ggml=17, elements=256, bytes=74, decode=_iq2_xs),
    BlockFormat(name="IQ2_S", ggml=22, elements=256, bytes=82, decode=_iq2_s),
    BlockFormat(name="IQ3_XXS", ggml=18, elements=256, bytes=98, decode=_iq3_xxs),
    BlockFormat(name="IQ3_S", ggml=21, elements=256, bytes=110, decode=_iq3_s),
    BlockFormat(name="IQ4_NL", ggml=20, elements=32, bytes=18, decode=_iq4_nl),
    BlockFormat(name="IQ4_XS", ggml=23, elements=256, bytes=136, decode=_iq4_xs),
)
