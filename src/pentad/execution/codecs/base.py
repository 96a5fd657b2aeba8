"""Codec: how hidden states are written for a link, in what bytes and at what error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from pentad.errors import BackendFailed
from pentad.types import Exactness

Floats = npt.NDArray[np.float32]
Buffer = bytes | bytearray | memoryview


class Codec(Protocol):
    """Rows of numbers to bytes and back. Immutable; both ends have the same one."""

    name: ClassVar[str]
    exactness: ClassVar[Exactness]
    """`bounded` ones state the bound in `error_bound`."""

    def encode(self, rows: Floats) -> list[Buffer]:
        """Rows [N, E] as buffers, from which `decode` makes them again given their shape."""
        ...

    def decode(self, buffers: Sequence[Buffer], shape: tuple[int, int]) -> Floats:
        """Rows of that shape. Raises BackendFailed for bytes that hold none."""
        ...

    def error_bound(self, rows: Floats) -> Floats:
        """[N, E] how far each number may be from its own; infinite where nothing is promised."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a codec made of some rows."""

    plain_bytes: int
    """In 16 bits a number, as models are usually served."""
    bytes: int
    relative_error: float
    """Norm of the difference over the norm of the rows."""

    @property
    def ratio(self) -> float:
        """How many times fewer bytes than in 16 bits."""
        return self.plain_bytes / self.bytes

    @property
    def bits(self) -> float:
        """Of a number, on average."""
        return 16 * self.bytes / self.plain_bytes


def report(codec: Codec, rows: Floats) -> Report:
    """Bytes and error of rows [N, E] through a codec."""
    buffers = codec.encode(rows)
    found = codec.decode(buffers, shape_of(rows))
    size = float(np.linalg.norm(rows))
    return Report(
        plain_bytes=2 * rows.size,
        bytes=sum(memoryview(buffer).nbytes for buffer in buffers),
        relative_error=float(np.linalg.norm(found - rows)) / size if size else 0.0,
    )


def shape_of(rows: Floats) -> tuple[int, int]:
    """Of a matrix."""
    return int(rows.shape[0]), int(rows.shape[1])


def decoded(codec: Codec, buffers: Sequence[Buffer], shape: tuple[int, int]) -> Floats:
    """What the codec makes of buffers that another process has sent. Raises BackendFailed for others than it
    writes."""
    try:
        if min(shape) >= 0 and (found := codec.decode(buffers, shape)).shape == shape:
            return found
    except (ValueError, IndexError, TypeError, OverflowError, MemoryError):
        pass
    raise BackendFailed(f"{len(buffers)} buffers hold no rows {shape} in the codec {codec.name!r}")


def array_of(buffer: Buffer, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """The numbers in a buffer. Raises BackendFailed where it has another size."""
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if memoryview(buffer).nbytes != expected:
        raise BackendFailed(f"{memoryview(buffer).nbytes} bytes came for numbers of {expected}")
    return np.frombuffer(buffer, dtype).reshape(shape)
