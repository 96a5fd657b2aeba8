"""What a format of stored tensors is: a record of its geometry and of how a block is read.

A row of a matrix is cut into blocks of `elements` numbers; each block takes `bytes` bytes and holds
its own scales. Nothing here depends on the device that will use the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pentad.execution.weights import TensorFormat

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int8]


class Decoded(Protocol):
    """The content of blocks, as far as it is understood without arithmetic."""

    def values(self) -> Floats:
        """The numbers in float32: [n, elements]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Blocks that hold plain numbers."""

    numbers: Floats
    """[n, elements]"""

    def values(self) -> Floats:
        return self.numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Blocks that hold integers with scales: number = code * scale + offset, in float32.

    Every format of integers can be told so; it is also what the kernels compute with.
    """

    codes: Integers
    """[n, parts, elements of a part], at most 8 bits and no more than the format has levels."""
    scale: Floats
    """[n, parts]"""
    offset: Floats | None = None
    """[n, parts]; None stands for 0."""

    def values(self) -> Floats:
        found: Floats = self.codes.astype(np.float32)
        found *= self.scale[:, :, None]
        if self.offset is not None:
            found += self.offset[:, :, None]
        return found.reshape(len(found), -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFormat:
    """One format. Its name is the field's: ggml's where ggml has it."""

    name: TensorFormat
    ggml: int | None
    """Its number in GGUF files; None where they don't have it."""
    elements: int
    """Numbers of a block."""
    bytes: int
    """Bytes of a block."""
    decode: Callable[[Bytes], Decoded]
    """What blocks [n, bytes] hold."""

    @property
    def bits(self) -> float:
        """Bits of a number in the file, scales included."""
        return 8 * self.bytes / self.elements


def half(blocks: Bytes, at: int, count: int = 1) -> Floats:
    """The fp16 numbers from a byte of every block on: [n, count]."""
    found: Floats = np.ascontiguousarray(blocks[:, at : at + 2 * count]).view(np.float16).astype(np.float32)
    return found


def words(blocks: Bytes, at: int, count: int, type: type[np.unsignedinteger]) -> npt.NDArray[np.uint32]:
    """Little-endian integers from a byte of every block on: [n, count]."""
    size = np.dtype(type).itemsize
    part = np.ascontiguousarray(blocks[:, at : at + size * count])
    return part.view(np.dtype(type).newbyteorder("<")).astype(np.uint32)


def nibbles(codes: Bytes, group: int) -> Bytes:
    """Of each `group` bytes first the low halves, then the high: [n, b] to [n, b / group, 2 group]."""
    groups = codes.reshape(len(codes), -1, group)
    return np.concatenate((groups & 15, groups >> 4), axis=2)


def fields(codes: Bytes, group: int, width: int) -> Bytes:
    """Of `group` bytes the lowest `width` bits, then the next: [n, b] to [n, b / group, 8 / width, group]."""
    shifts = np.arange(0, 8, width, dtype=np.uint8).reshape(1, 1, -1, 1)
    found: Bytes = (codes.reshape(len(codes), -1, 1, group) >> shifts) & np.uint8((1 << width) - 1)
    return found


def bits(packed: Bytes) -> Bytes:
    """The bits of each byte, lowest first: [n, b] to [n, 8 b]."""
    return np.unpackbits(np.ascontiguousarray(packed), axis=1, bitorder="little")
