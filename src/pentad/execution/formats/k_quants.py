"""K-quants: super-blocks of 256 numbers whose parts have small integers as scales, times one in fp16.

Source: the block layouts of ggml (`ggml-common.h`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pentad.execution.formats.base import BlockFormat, Bytes, Codes, Floats, fields, half, nibbles

_PARTS: Final = 16


def _q2_k(blocks: Bytes) -> Codes:
    """16 bytes of scales (low halves) and minima, 64 of codes, two scales of these."""
    scales = blocks[:, :16]
    return Codes(
        codes=fields(blocks[:, 16:80], 32, 2).reshape(-1, _PARTS, 16).view(np.int8),
        scale=half(blocks, 80) * (scales & 15).astype(np.float32),
        offset=-(half(blocks, 82) * (scales >> 4).astype(np.float32)),
    )


def _q3_k(blocks: Bytes) -> Codes:
    """32 bytes of third bits, which take 4 off where 0, 64 of codes, 12 of scales, the scale of these."""
    low = fields(blocks[:, 32:96], 32, 2).reshape(-1, 8, 32)
    third = fields(blocks[:, :32], 32, 1).reshape(-1, 8, 32)
    codes = (low | np.left_shift(third, np.uint8(2))).view(np.int8) - np.int8(4)
    return Codes(
        codes=codes.reshape(-1, _PARTS, 16), scale=half(blocks, 108) * _signed_scales(blocks[:, 96:108])
    )


def _signed_scales(packed: Bytes) -> Floats:
    """Sixteen 6-bit scales less 32: eight bytes hold their low halves, four the upper two bits of each."""
    low = nibbles(packed[:, :8], 8)[:, 0]
    high = fields(packed[:, 8:], 4, 2).reshape(-1, _PARTS)
    scales = (low | np.left_shift(high, np.uint8(4))).view(np.int8) - np.int8(32)
    return scales.astype(np.float32)


def _scales_and_minima(packed: Bytes) -> tuple[Floats, Floats]:
    """Eight 6-bit scales and minima out of 12 bytes: two of [n, 8].

    byte   0..3                 4..7                 8..11
    bits   s4 high 2 | s0 low 6 m4 high 2 | m0 low 6 m4 low 4 | s4 low 4
    """
    a, b, c = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((a & 63, (c & 15) | ((a >> 2) & 48)), axis=1)
    minima = np.concatenate((b & 63, (c >> 4) | ((b >> 2) & 48)), axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _with_minima(blocks: Bytes, codes: Bytes) -> Codes:
    """Codes [n, 8, 32] of Q4_K or Q5_K with their two levels of scales."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    return Codes(
        codes=codes.view(np.int8), scale=half(blocks, 0) * scales, offset=-(half(blocks, 2) * minima)
    )


def _q4_k(blocks: Bytes) -> Codes:
    return _with_minima(blocks, nibbles(blocks[:, 16:], 32).reshape(-1, 8, 32))


def _q5_k(blocks: Bytes) -> Codes:
    fifth = fields(blocks[:, 16:48], 32, 1).reshape(-1, 8, 32)
    low = nibbles(blocks[:, 48:], 32).reshape(-1, 8, 32)
    return _with_minima(blocks, low | np.left_shift(fifth, np.uint8(4)))


def _q6_k(blocks: Bytes) -> Codes:
    """128 bytes of low halves, 64 of upper bits, 16 scales, the scale of these."""
    low = nibbles(blocks[:, :128], 64).reshape(-1, 8, 32)
    high = fields(blocks[:, 128:192], 32, 2).reshape(-1, 8, 32)
    codes = (low | np.left_shift(high, np.uint8(4))).view(np.int8) - np.int8(32)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    return Codes(codes=codes.reshape(-1, _PARTS, 16), scale=scales * half(blocks, 208))


def _q8_k(blocks: Bytes) -> Codes:
    """A scale in float32, the codes, and their sums, which are no part of the numbers."""
    scale = np.ascontiguousarray(blocks[:, :4]).view(np.float32)
    return Codes(codes=blocks[:, None, 4:260].view(np.int8), scale=scale)


def _tq1_0(blocks: Bytes) -> Codes:
    """Digits of base 3, five in a byte: 32 + 16 bytes of five, then 4 of four, then the scale."""
    parts = (_digits(blocks[:, :32], 5), _digits(blocks[:, 32:48], 5), _digits(blocks[:, 48:52], 4))
    return Codes(
        codes=np.concatenate(parts, axis=1).view(np.int8)[:, None] - np.int8(1), scale=half(blocks, 52)
    )


def _digits(packed: Bytes, count: int) -> Bytes:
    """The leading digits in base 3 of bytes as fractions of 256: all first ones, then all second ones."""
    powers = (3 ** np.arange(count)).astype(np.uint8).reshape(1, -1, 1)
    left = packed[:, None, :] * powers  # modulo 256: digits before are dropped
    return ((left.astype(np.uint16) * 3) >> 8).astype(np.uint8).reshape(len(packed), -1)


def _tq2_0(blocks: Bytes) -> Codes:
    codes = fields(blocks[:, :64], 32, 2).reshape(len(blocks), 1, -1)
    return Codes(codes=codes.view(np.int8) - np.int8(1), scale=half(blocks, 64))


K_QUANTS: Final = (
    BlockFormat(name="Q2_K", ggml=10, elements=256, bytes=84, decode=_q2_k),
    BlockFormat(name="Q3_K", ggml=11, elements=256, bytes=110, decode=_q3_k),
    BlockFormat(name="Q4_K", ggml=12, elements=256, bytes=144, decode=_q4_k),
    BlockFormat(name="Q5_K", ggml=13, elements=256, bytes=176, decode=_q5_k),
    BlockFormat(name="Q6_K", ggml=14, elements=256, bytes=210, decode=_q6_k),
    BlockFormat(name="Q8_K", ggml=15, elements=256, bytes=292, decode=_q8_k),
    BlockFormat(name="TQ1_0", ggml=34, elements=256, bytes=54, decode=_tq1_0),
    BlockFormat(name="TQ2_0", ggml=35, elements=256, bytes=66, decode=_tq2_0),
)
