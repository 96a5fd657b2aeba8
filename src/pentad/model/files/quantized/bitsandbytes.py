"""bitsandbytes: NF4 in blocks whose scales may be quantized themselves, and int8 by rows.

    4-bit  weight uint8 [out * in / 2, 1]   weight.absmax   weight.quant_map [16]
           weight.nested_absmax, weight.nested_quant_map [256] where scales are quantized
           weight.quant_state.bitsandbytes__nf4: JSON with shape, block sizes and offset
    8-bit  weight int8 [out, in]   SCB [out]

Source: Dettmers et al. 2022 and 2023; the package `bitsandbytes` (`QuantState`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.formats.scaled import ELEMENTS, NF4_LEVELS, packed_nibbles, scaled_blocks
from pentad.json_text import parse_json
from pentad.model.files.fields import Fields
from pentad.model.files.quantized.base import Matrix, Members, Method
from pentad.model.files.quantized.integers import Integers

_STATE = ".weight.quant_state.bitsandbytes__nf4"


def from_config(config: Fields) -> Method:
    """The form that a `quantization_config` names. Raises BadModelFile."""
    if config.flag("load_in_8bit", False) or config.flag("_load_in_8bit", False):
        return Int8()
    kind = config.text("bnb_4bit_quant_type", "nf4")
    if kind != "nf4":
        config.fail("bnb_4bit_quant_type", f"is {kind!r}, readable is nf4")
    return Nf4()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nf4:
    """The 4-bit form."""

    label: str = "bitsandbytes nf4"
    main: str = ".weight"
    types: tuple[str, ...] = ("U8",)
    others: tuple[str, ...] = (
        *(".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map"),
        _STATE,
    )

    def matrix(self, members: Members) -> Matrix:
        """See `Method.matrix`."""
        state = _state(members)
        size, shape = state.integer("blocksize", low=1), state.values.get("shape")
        if not isinstance(shape, list) or len(shape) != 2 or not all(type(v) is int and v > 0 for v in shape):
            members.fail(_STATE, f"says the shape {str(shape)[:60]}, must be two sizes")
        rows, columns = shape
        if size % ELEMENTS or columns % ELEMENTS:
            members.fail(_STATE, f"has blocks of {size}, rows of {columns}, must be multiples of {ELEMENTS}")
        count = -(-rows * columns // size)
        info = members.info(".weight")
        if info is None or prod(info.shape) * 2 != rows * columns:
            members.fail(".weight", f"does not hold the {rows * columns} codes of its state")
        members.shape(".weight.quant_map", ("F32",), 16)
        if not np.array_equal(members.array(".weight.quant_map"), np.array(NF4_LEVELS, np.float32)):
            members.fail(".weight.quant_map", "has other levels than NF4")
        nested = members.info(".weight.nested_absmax") is not None
        members.shape(".weight.absmax", ("U8",) if nested else ("F32",), count)
        scale_size = _nested_size(members, state, count) if nested else 0

        def scales() -> Floats:
            if not nested:
                return members.floats(".weight.absmax")
            outer = np.repeat(members.floats(".weight.nested_absmax"), scale_size)[:count]
            inner = members.floats(".weight.nested_quant_map")[members.array(".weight.absmax")]
            return inner * outer + np.float32(state.number("nested_offset", 0.0))

        def blocks() -> Bytes:
            data = members.array(".weight").reshape(-1)
            codes = np.stack((data >> 4, data & 15), axis=-1).reshape(-1, ELEMENTS)
            spread = np.repeat(scales(), size // ELEMENTS)[: len(codes)]
            return scaled_blocks(spread, packed_nibbles(codes)).reshape(-1)

        return Matrix(shape=(rows, columns), format="NF4", make=blocks)


def _state(members: Members) -> Fields:
    members.shape(_STATE, ("U8",), None)
    try:
        value = parse_json(members.array(_STATE).tobytes().decode("utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        members.fail(_STATE, "is no JSON object")
    return Fields(source=members.name(_STATE), values=value)


def _nested_size(members: Members, state: Fields, count: int) -> int:
    size = state.integer("nested_blocksize", 256, low=1)
    members.shape(".weight.nested_absmax", ("F32",), -(-count // size))
    members.shape(".weight.nested_quant_map", ("F32",), 256)
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8:
    """The 8-bit form: number = code * SCB / 127."""

    label: str = "bitsandbytes int8"
    main: str = ".weight"
    types: tuple[str, ...] = ("I8",)
    others: tuple[str, ...] = (".SCB", ".weight_format")

    def matrix(self, members: Members) -> Matrix:
        """See `Method.matrix`."""
        rows, columns = members.shape(".weight", ("I8",), None, None)
        members.shape(".SCB", ("F32",), rows)
        return Integers(
            shape=(rows, columns),
            bits=8,
            groups=1,
            codes=lambda: members.array(".weight").view(np.uint8) ^ np.uint8(128),
            scale=lambda: members.floats(".SCB").reshape(-1, 1) / np.float32(127),
        ).matrix()
