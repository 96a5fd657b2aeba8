"""AWQ: 4-bit codes packed along the output, eight a word in a shuffled order, with zero points.

    qweight [in, out / 8]   qzeros [groups, out / 8]   scales [groups, out]

Source: Lin et al. 2024; the `gemm` layout of AutoAWQ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pentad.model.files.fields import Fields
from pentad.model.files.quantized.base import FLOAT_TYPES, Array, Matrix, Members
from pentad.model.files.quantized.integers import Integers, unpacked

_NIBBLE_OF: Final = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word the codes of eight outputs lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Awq:
    """The method `awq`."""

    label: str = "awq 4-bit"
    main: str = ".qweight"
    types: tuple[str, ...] = ("I32",)
    others: tuple[str, ...] = (".qzeros", ".scales")

    @classmethod
    def from_config(cls, config: Fields) -> Awq:
        """With the options of a `quantization_config`. Raises BadModelFile."""
        bits = config.integer("bits", config.integer("w_bit", 4))
        if bits != 4:
            config.fail("bits", f"is {bits}, readable are 4")
        version = config.text("version", "gemm").lower()
        if version != "gemm":
            config.fail("version", f"is {version!r}, readable is gemm")
        if not config.flag("zero_point", True):
            config.fail("zero_point", "is false, readable is true")
        return cls()

    def matrix(self, members: Members) -> Matrix:
        """See `Method.matrix`."""
        columns, words = members.shape(".qweight", ("I32",), None, None)
        rows = words * 8
        groups = members.shape(".scales", FLOAT_TYPES, None, rows)[0]
        members.shape(".qzeros", ("I32",), groups, words)
        if not 1 <= groups <= columns or columns % groups:
            members.fail(".scales", f"has {groups} groups for {columns} inputs")

        def in_order(suffix: str) -> Array:
            codes = unpacked(members.array(suffix), 4).reshape(-1, words, 8)
            return np.ascontiguousarray(codes[:, :, _NIBBLE_OF].reshape(-1, rows).T)

        return Integers(
            shape=(rows, columns),
            bits=4,
            groups=groups,
            codes=lambda: in_order(".qweight"),
            scale=lambda: members.floats(".scales").T,
            zero=lambda: in_order(".qzeros"),
        ).matrix()
