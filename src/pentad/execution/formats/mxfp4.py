"""MXFP4: floating-point numbers of 4 bits with a power of two for each 32.

Source: OCP Microscaling Formats v1.0 (E2M1 elements, E8M0 scale); the block layout is ggml's.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pentad.execution.formats.base import BlockFormat, Bytes, Codes, Floats, Integers, nibbles

MXFP4_LEVELS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""Twice the number of each code. The code of -0 gives 0, as in the reference."""


def half_power(exponents: Bytes) -> Floats:
    """Half of 2 ** (e - 127): the scale of doubled numbers."""
    wide = exponents.astype(np.uint32)
    small = np.left_shift(np.uint32(0x0020_0000), np.minimum(wide, 1))  # below the smallest normal number
    bits = np.where(wide < 2, small, np.left_shift(np.maximum(wide, 1) - 1, 23))
    return bits.astype(np.uint32).view(np.float32)


def _levels(codes: Bytes) -> Integers:
    found: Integers = np.array(MXFP4_LEVELS, np.int8)[codes]
    return found


def _mxfp4(blocks: Bytes) -> Codes:
    return Codes(codes=_levels(nibbles(blocks[:, 1:], 16)), scale=half_power(blocks[:, :1]))


MICROSCALED: Final = (BlockFormat(name="MXFP4", ggml=39, elements=32, bytes=17, decode=_mxfp4),)
