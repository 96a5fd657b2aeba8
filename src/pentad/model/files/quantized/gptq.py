"""GPTQ: codes packed along the input, zero points along the output, scales of each group of inputs.

    qweight [in * bits / 32, out]   qzeros [groups, out * bits / 32]   scales [groups, out]   g_idx [in]

Zero points are stored less one, unless `checkpoint_format` is `gptq_v2`. With `desc_act` any input may
belong to any group. Source: Frantar et al. 2023; the layout of AutoGPTQ's `QuantLinear`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pentad.model.files.fields import Fields
from pentad.model.files.quantized.base import FLOAT_TYPES, Array, Matrix, Members
from pentad.model.files.quantized.integers import Integers, unpacked

_BITS: Final = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """The method `gptq`."""

    bits: int
    symmetric: bool
    zeros_less: int
    """What was taken off zero points before they were stored."""
    main: str = ".qweight"
    types: tuple[str, ...] = ("I32",)
    others: tuple[str, ...] = (".qzeros", ".scales", ".g_idx", ".bits", ".maxq")

    @classmethod
    def from_config(cls, config: Fields) -> Gptq:
        """With the options of a `quantization_config`. Raises BadModelFile."""
        bits = config.integer("bits")
        if bits not in _BITS:
            config.fail("bits", f"is {bits}, readable are {', '.join(map(str, _BITS))}")
        if config.values.get("dynamic"):
            config.fail("dynamic", "gives modules options of their own, which are not read")
        form = config.text("checkpoint_format", "gptq")
        if form not in ("gptq", "gptq_v2"):
            config.fail("checkpoint_format", f"is {form!r}, readable are gptq and gptq_v2")
        return cls(bits=bits, symmetric=config.flag("sym", False), zeros_less=0 if form == "gptq_v2" else 1)

    @property
    def label(self) -> str:
        return f"gptq {self.bits}-bit"

    def matrix(self, members: Members) -> Matrix:
        """See `Method.matrix`."""
        packed, rows = members.shape(".qweight", ("I32",), None, None)
        columns = packed * 32 // self.bits
        groups = members.shape(".scales", FLOAT_TYPES, None, rows)[0]
        members.shape(".qzeros", ("I32",), groups, rows * self.bits // 32)
        if rows * self.bits % 32 or packed * 32 % self.bits or not 1 <= groups <= columns:
            members.fail(".qweight", f"has shape {(packed, rows)}, which no codes of {self.bits} bits fill")

        def zero() -> Array:
            kept = unpacked(members.array(".qzeros"), self.bits) + np.uint8(self.zeros_less)
            return np.ascontiguousarray((kept & np.uint8((1 << self.bits) - 1)).T)

        def middle() -> Array:
            if (zero() != 1 << (self.bits - 1)).any():
                members.fail(".qzeros", 'has zero points, though the config says "sym": true')
            return unpacked(np.ascontiguousarray(members.array(".qweight").T), self.bits)

        def codes() -> Array:
            return unpacked(np.ascontiguousarray(members.array(".qweight").T), self.bits)

        return Integers(
            shape=(rows, columns),
            bits=self.bits,
            groups=groups,
            codes=middle if self.symmetric else codes,
            scale=lambda: members.floats(".scales").T,
            zero=None if self.symmetric else zero,
            group_of=_group_of(members, columns, groups),
        ).matrix()


def _group_of(members: Members, columns: int, groups: int) -> Array | None:
    """The group of each input; None where they are in order."""
    if members.info(".g_idx") is None:
        return None
    members.shape(".g_idx", ("I32", "I64"), columns)
    found = members.array(".g_idx")
    if found.min() < 0 or found.max() >= groups:
        members.fail(".g_idx", f"names groups from {found.min()} to {found.max()}, there are {groups}")
    size = -(-columns // groups)
    ordered = columns % groups == 0 and np.array_equal(found, np.arange(columns) // size)
    return None if ordered else found
