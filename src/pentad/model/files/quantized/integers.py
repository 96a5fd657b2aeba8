"""Matrices of small integers with a scale, and perhaps a zero point, for each group of columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.formats.scaled import ELEMENTS, packed_nibbles, scaled_blocks
from pentad.execution.weights import TensorFormat
from pentad.model.files.quantized.base import Array, Matrix, dense

Codes = npt.NDArray[np.uint8]


def unpacked(words: Array, bits: int) -> Codes:
    """Unsigned codes out of 32-bit words, the lowest bits first: [..., n] to [..., 32 n / bits].

    Codes of 3 bits run on across words.
    """
    data = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        return data
    if bits in (2, 4):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        found: Codes = (data[..., None] >> shifts) & np.uint8((1 << bits) - 1)
        return found.reshape(*data.shape[:-1], -1)
    single = np.unpackbits(data, axis=-1, bitorder="little").reshape(*data.shape[:-1], -1, bits)
    return single @ (1 << np.arange(bits, dtype=np.uint8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Integers:
    """A matrix number = (code - zero) * scale.

    `zero` None stands for the middle code, 2^(bits-1). With `group_of` columns may have any group.
    """

    shape: tuple[int, int]
    bits: int
    groups: int
    codes: Callable[[], Codes]
    """[out, in]"""
    scale: Callable[[], Floats]
    """[out, groups]"""
    zero: Callable[[], Array] | None = None
    """[out, groups]"""
    group_of: Array | None = None
    """[in]; None: groups are as large as one another and lie side by side."""

    def matrix(self) -> Matrix:
        """In blocks where each block lies in one group, else as float32."""
        format = self._format()
        makes = {"INT4": self._int4, "UINT4": self._uint4, "INT8": self._int8}
        return Matrix(shape=self.shape, format=format, make=makes.get(format, self._dense))

    def _format(self) -> TensorFormat:
        columns = self.shape[1]
        if self.group_of is not None or columns % self.groups or columns // self.groups % ELEMENTS:
            return "F32"
        if self.bits == 8:
            return "INT8" if self.zero is None else "F32"
        return "INT4" if self.bits == 4 and self.zero is None else "UINT4"

    def _blocks(self) -> Codes:
        return self.codes().reshape(-1, ELEMENTS)

    def _spread(self, of_groups: Array) -> Array:
        """What groups have, for each block: [out, groups] to [blocks]."""
        return np.repeat(of_groups, self.shape[1] // self.groups // ELEMENTS, axis=1).reshape(-1)

    def _int4(self) -> Bytes:
        return scaled_blocks(self._spread(self.scale()), packed_nibbles(self._blocks())).reshape(-1)

    def _uint4(self) -> Bytes:
        zero = self._spread(self._zero()).astype(np.int32).reshape(-1, 1).view(np.uint8)
        return scaled_blocks(self._spread(self.scale()), zero, packed_nibbles(self._blocks())).reshape(-1)

    def _int8(self) -> Bytes:
        return scaled_blocks(self._spread(self.scale()), self._blocks() ^ np.uint8(128)).reshape(-1)

    def _zero(self) -> Array:
        if self.zero is None:
            return np.full((self.shape[0], self.groups), 1 << (self.bits - 1))
        return self.zero()

    def _dense(self) -> Bytes:
        rows, columns = self.shape
        group_of = self.group_of
        if group_of is None:
            group_of = np.arange(columns) * self.groups // columns
        values = self.codes().astype(np.float32)
        values -= self._zero().astype(np.float32)[:, group_of]
        values *= self.scale()[:, group_of]
        return dense(values.reshape(rows, columns))
