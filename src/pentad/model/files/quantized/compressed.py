"""compressed-tensors, of vLLM's compressor: packed integers, plain int8, or 8-bit floats.

    pack-quantized   weight_packed [out, in * bits / 32]   weight_scale [out, groups]   weight_shape [2]
                     weight_zero_point [out * bits / 32, groups] and weight_g_idx [in] where used
    int-quantized    weight int8 [out, in]   weight_scale [out, 1] or [1]
    float-quantized  as in floats8.py

Packed codes are signed ones plus 2^(bits-1). Source: the package `compressed-tensors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pentad.model.files.fields import Fields
from pentad.model.files.quantized.base import FLOAT_TYPES, Array, Matrix, Members, Method
from pentad.model.files.quantized.floats8 import Floats8, block_of
from pentad.model.files.quantized.integers import Integers, unpacked


def from_config(config: Fields) -> Method:
    """The form that a `quantization_config` names. Raises BadModelFile."""
    groups = config.table("config_groups").values
    weights = [
        Fields(source=config.source, values=group["weights"])
        for group in groups.values()
        if isinstance(group, Mapping) and isinstance(group.get("weights"), Mapping)
    ]
    if not weights or any(other.values != weights[0].values for other in weights):
        config.fail("config_groups", f"has {len(weights)} ways for weights; one for all is readable")
    form, options = config.text("format"), weights[0]
    kind, bits = options.text("type", "int"), options.integer("num_bits")
    if form == "pack-quantized" and kind == "int" and bits in (4, 8):
        return Packed(bits=bits, symmetric=options.flag("symmetric", True))
    if form in ("int-quantized", "naive-quantized") and kind == "int" and bits == 8:
        if not options.flag("symmetric", True):
            options.fail("symmetric", "is false, readable is true")
        return Int8()
    if form in ("float-quantized", "naive-quantized") and kind == "float" and bits == 8:
        return Floats8(block=block_of(options, "block_structure"), label="compressed-tensors fp8")
    return config.fail(
        "format",
        f"is {form!r} with {kind}{bits}, readable are pack-quantized int4 and int8, int-quantized int8 and "
        "float-quantized float8",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The form `pack-quantized`."""

    bits: int
    symmetric: bool
    main: str = ".weight_packed"
    types: tuple[str, ...] = ("I32",)
    others: tuple[str, ...] = (
        ".weight_scale",
        ".weight_shape",
        ".weight_zero_point",
        ".weight_g_idx",
        ".input_scale",
    )

    @property
    def label(self) -> str:
        return f"compressed-tensors int{self.bits}"

    def matrix(self, members: Members) -> Matrix:
        """See `Method.matrix`."""
        rows, words = members.shape(".weight_packed", ("I32",), None, None)
        members.shape(".weight_shape", ("I64", "I32"), 2)
        shape = tuple(int(size) for size in members.array(".weight_shape"))
        columns = shape[1]
        if shape[0] != rows or not columns >= 1 or words != -(-columns * self.bits // 32):
            members.fail(".weight_shape", f"says {shape}, the codes have shape {(rows, words)}")
        groups = members.shape(".weight_scale", FLOAT_TYPES, rows, None)[1]
        if not 1 <= groups <= columns:
            members.fail(".weight_scale", f"has {groups} groups for {columns} inputs")
        if not self.symmetric:
            members.shape(".weight_zero_point", ("I32",), -(-rows * self.bits // 32), groups)

        def zero() -> Array:
            packed = np.ascontiguousarray(members.array(".weight_zero_point").T)
            return unpacked(packed, self.bits)[:, :rows].T

        return Integers(
            shape=(rows, columns),
            bits=self.bits,
            groups=groups,
            codes=lambda: unpacked(members.array(".weight_packed"), self.bits)[:, :columns],
            scale=lambda: members.floats(".weight_scale"),
            zero=None if self.symmetric else zero,
            group_of=_group_of(members, columns, groups),
        ).matrix()


def _group_of(members: Members, columns: int, groups: int) -> Array | None:
    if members.info(".weight_g_idx") is None:
        return None
    members.shape(".weight_g_idx", ("I32", "I64"), columns)
    found = members.array(".weight_g_idx")
    if (found == -1).all():  # what the compressor writes where inputs are in order
        return None
    if found.min() < 0 or found.max() >= groups:
        members.fail(".weight_g_idx", f"names groups from {found.min()} to {found.max()}, there are {groups}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8:
    """The form `int-quantized`."""

    label: str = "compressed-tensors int8"
    main: str = ".weight"
    types: tuple[str, ...] = ("I8",)
    others: tuple[str, ...] = (".weight_scale", ".weight_zero_point", ".input_scale", ".input_zero_point")

    def matrix(self, members: Members) -> Matrix:
        """See `Method.matrix`."""
        rows, columns = members.shape(".weight", ("I8",), None, None)
        info = members.info(".weight_scale")
        shape = () if info is None else info.shape
        members.shape(".weight_scale", FLOAT_TYPES, *shape)
        if np.prod(shape) not in (1, rows):
            members.fail(".weight_scale", f"has shape {shape} beside a matrix of {(rows, columns)}")
        return Integers(
            shape=(rows, columns),
            bits=8,
            groups=1,
            codes=lambda: members.array(".weight").view(np.uint8) ^ np.uint8(128),
            scale=lambda: np.broadcast_to(members.floats(".weight_scale").reshape(-1, 1), (rows, 1)),
        ).matrix()
