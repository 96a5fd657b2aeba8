"""The grids of formats that have one, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.formats.i_quants import IQ4_LEVELS
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.rounding.block_grids import BlockGrid, SuperGrid
from pentad.execution.rounding.grid import Grid, whole_numbers
from pentad.execution.rounding.packing import (
    half_bytes,
    packed_fields,
    packed_nibbles,
    packed_scales_and_minima,
    packed_signed_scales,
)
from pentad.execution.weights import TensorFormat


def _low_bits(index: Bytes) -> Bytes:
    return index & np.uint8(15)


def _upper(index: Bytes, bits: int) -> Bytes:
    return np.right_shift(index, np.uint8(bits))


def _nibbles(index: Bytes, head: Bytes) -> Bytes:
    return np.concatenate((head, packed_nibbles(index, 16)), axis=1)


def _five_bits(index: Bytes, head: Bytes) -> Bytes:
    fifth = packed_fields(_upper(index, 4), 1, 1)
    return np.concatenate((head, fifth, packed_nibbles(_low_bits(index), 16)), axis=1)


def _eight_bits(index: Bytes, head: Bytes) -> Bytes:
    return np.concatenate((head, (index.astype(np.int16) - 127).astype(np.int8).view(np.uint8)), axis=1)


def _q2_k(index: Bytes, head: Bytes) -> Bytes:
    return np.concatenate((head[:, :16], packed_fields(index, 32, 2), head[:, 16:]), axis=1)


def _q3_k(index: Bytes, head: Bytes) -> Bytes:
    third, low = packed_fields(_upper(index, 2), 32, 1), packed_fields(index & np.uint8(3), 32, 2)
    return np.concatenate((third, low, head), axis=1)


def _q4_k(index: Bytes, head: Bytes) -> Bytes:
    return np.concatenate((head, packed_nibbles(index, 32)), axis=1)


def _q5_k(index: Bytes, head: Bytes) -> Bytes:
    fifth = packed_fields(_upper(index, 4), 32, 1)
    return np.concatenate((head, fifth, packed_nibbles(_low_bits(index), 32)), axis=1)


def _q6_k(index: Bytes, head: Bytes) -> Bytes:
    low, high = packed_nibbles(_low_bits(index), 64), packed_fields(_upper(index, 4), 32, 2)
    return np.concatenate((low, high, head), axis=1)


def _head_2(scales: Bytes, minima: Bytes, unit: Floats, low_unit: Floats) -> Bytes:
    return np.concatenate(
        (scales | np.left_shift(minima, np.uint8(4)), half_bytes(unit), half_bytes(low_unit)), axis=1
    )


def _head_3(scales: Bytes, minima: Bytes, unit: Floats, low_unit: Floats) -> Bytes:
    del minima, low_unit
    return np.concatenate((packed_signed_scales(scales), half_bytes(unit)), axis=1)


def _head_45(scales: Bytes, minima: Bytes, unit: Floats, low_unit: Floats) -> Bytes:
    both = np.concatenate((unit, low_unit), axis=1)
    return np.concatenate((half_bytes(both), packed_scales_and_minima(scales, minima)), axis=1)


def _head_6(scales: Bytes, minima: Bytes, unit: Floats, low_unit: Floats) -> Bytes:
    del minima, low_unit
    signed = (scales.astype(np.int16) - 128).astype(np.int8)
    return np.concatenate((signed.view(np.uint8), half_bytes(unit)), axis=1)


_IQ4 = np.array(IQ4_LEVELS, np.float32)
_LIST: Final[tuple[Grid, ...]] = (
    BlockGrid(format="Q4_0", levels=whole_numbers(-8, 7), layout=_nibbles),
    BlockGrid(format="Q4_1", levels=whole_numbers(0, 15), layout=_nibbles, offset=True),
    BlockGrid(format="Q5_0", levels=whole_numbers(-16, 15), layout=_five_bits),
    BlockGrid(format="Q5_1", levels=whole_numbers(0, 31), layout=_five_bits, offset=True),
    BlockGrid(format="Q8_0", levels=whole_numbers(-127, 127), layout=_eight_bits),
    BlockGrid(format="IQ4_NL", levels=_IQ4, layout=_nibbles),
    SuperGrid(
        format="Q2_K",
        levels=whole_numbers(0, 3),
        layout=_q2_k,
        parts=16,
        scale_range=(0, 15),
        minimum=15,
        head=_head_2,
    ),
    SuperGrid(
        format="Q3_K",
        levels=whole_numbers(-4, 3),
        layout=_q3_k,
        parts=16,
        scale_range=(-32, 31),
        head=_head_3,
    ),
    SuperGrid(
        format="Q4_K",
        levels=whole_numbers(0, 15),
        layout=_q4_k,
        parts=8,
        scale_range=(0, 63),
        minimum=63,
        head=_head_45,
    ),
    SuperGrid(
        format="Q5_K",
        levels=whole_numbers(0, 31),
        layout=_q5_k,
        parts=8,
        scale_range=(0, 63),
        minimum=63,
        head=_head_45,
    ),
    SuperGrid(
        format="Q6_K",
        levels=whole_numbers(-32, 31),
        layout=_q6_k,
        parts=16,
        scale_range=(-128, 127),
        head=_head_6,
    ),
)
GRIDS: Final[Mapping[TensorFormat, Grid]] = MappingProxyType({grid.format: grid for grid in _LIST})
"""Name of a format to its grid."""
_OF_32: Final[Mapping[TensorFormat, TensorFormat]] = MappingProxyType(
    {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q4_0", "Q5_K": "Q5_0", "Q6_K": "Q8_0"}
)


def fitting(format: TensorFormat, columns: int) -> TensorFormat:
    """The format, or one of as many bits where rows do not divide into its blocks of 256, else F16."""
    for name in (format, _OF_32.get(format, "F16")):
        if columns % GEOMETRY[name].elements == 0:
            return name
    return "F16"
