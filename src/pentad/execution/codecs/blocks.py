"""Rows cut into blocks of equal length, a scale for each; and codes of four bits packed in pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pentad.execution.codecs.base import Floats

Codes = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]


def padded(rows: Floats, block: int) -> Floats:
    """Rows [N, E] as blocks [N, B, block]; what is missing at the end is zero."""
    missing = -rows.shape[1] % block
    return np.pad(rows, ((0, 0), (0, missing))).reshape(len(rows), (rows.shape[1] + missing) // block, block)


def scales_of(blocks: Floats, most: int) -> Floats:
    """[N, B] the step of codes up to `most`, rounded up to 16 bits so that no number lies beyond."""
    steps = np.abs(blocks).max(-1, initial=0) / most
    raw = np.ascontiguousarray(steps, np.float32).view(np.uint32)
    found: Floats = ((raw + 0xFFFF) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return found


def coded(blocks: Floats, scales: Floats, most: int) -> Codes:
    """The nearest codes [N, B, block], at most `most` on either side."""
    steps = np.where(scales > 0, scales, 1)[..., None]
    found: Codes = np.clip(np.rint(blocks / steps), -most, most).astype(np.int8)
    return found


def half_words(numbers: Floats) -> bytes:
    """The upper halves of float32: exact for scales, bfloat16 cut off for others."""
    return np.ascontiguousarray(
        (np.ascontiguousarray(numbers, "<f4").view("<u4") >> 16).astype("<u2")
    ).tobytes()


def of_half_words(words: npt.NDArray[np.generic]) -> Floats:
    """Numbers of such halves."""
    found: Floats = (words.astype("<u4") << 16).view("<f4").astype(np.float32)
    return found


def paired(codes: Codes) -> bytes:
    """Codes from -8 to 7, two to a byte."""
    flat = (codes.reshape(-1).astype(np.int16) + 8).astype(np.uint8)
    flat = np.pad(flat, (0, len(flat) % 2))
    return (flat[0::2] | (flat[1::2] << 4)).astype(np.uint8).tobytes()


def of_paired(data: Bytes, count: int) -> Codes:
    """The first `count` codes."""
    flat = np.empty(2 * len(data), np.int8)
    flat[0::2], flat[1::2] = (data & 15).astype(np.int8) - 8, (data >> 4).astype(np.int8) - 8
    return flat[:count]
