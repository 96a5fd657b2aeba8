"""Bits into bytes: the inverse of how the decoders of formats/ take them apart."""

from __future__ import annotations

import numpy as np

from pentad.execution.formats.base import Bytes, Floats


def half_bytes(values: Floats) -> Bytes:
    """Numbers [n, k] as fp16: [n, 2 k]."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values.astype(np.float16)).view(np.uint8)


def as_half(values: Floats) -> Floats:
    """What fp16 keeps of them."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def packed_nibbles(codes: Bytes, group: int) -> Bytes:
    """Of each 2 `group` codes the first half into low halves of bytes, the rest into high: [n, b]."""
    halves = codes.reshape(len(codes), -1, 2, group)
    found: Bytes = halves[:, :, 0] | np.left_shift(halves[:, :, 1], np.uint8(4))
    return found.reshape(len(codes), -1)


def packed_fields(codes: Bytes, group: int, width: int) -> Bytes:
    """Codes of `width` bits, `group` side by side before the next bits of the same bytes: [n, b]."""
    parts = codes.reshape(len(codes), -1, 8 // width, group)
    shifts = np.arange(0, 8, width, dtype=np.uint8).reshape(1, 1, -1, 1)
    found: Bytes = np.bitwise_or.reduce(np.left_shift(parts, shifts), axis=2)
    return found.reshape(len(codes), -1)


def packed_scales_and_minima(scales: Bytes, minima: Bytes) -> Bytes:
    """Eight 6-bit scales and minima [n, 8] in the 12 bytes of Q4_K, drawn in formats/k_quants.py."""
    four, six = np.uint8(4), np.uint8(6)
    a = scales[:, :4] | np.left_shift(np.right_shift(scales[:, 4:], four), six)
    b = minima[:, :4] | np.left_shift(np.right_shift(minima[:, 4:], four), six)
    c = (scales[:, 4:] & 15) | np.left_shift(minima[:, 4:] & 15, four)
    return np.concatenate((a, b, c), axis=1)


def packed_signed_scales(scales: Bytes) -> Bytes:
    """Sixteen 6-bit scales [n, 16], 32 standing for 0, in the 12 bytes of Q3_K."""
    low = packed_nibbles(scales & np.uint8(15), 8)
    high = packed_fields(np.right_shift(scales, np.uint8(4)), 4, 2)
    return np.concatenate((low, high), axis=1)
