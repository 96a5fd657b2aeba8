"""What a method of quantized safetensors is: which tensors make a matrix, and how.

A method keeps a matrix in several tensors, `q_proj.qweight`, `q_proj.scales` and so on. Here they become
one, `q_proj.weight`, whose blocks are put together when they are read and kept nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from pentad.errors import BadModelFile
from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.weights import MadeTensor, StoredTensor, TensorFormat
from pentad.model.files.formats import TensorInfo
from pentad.model.files.safetensors import SafetensorsFolder

Array = npt.NDArray[Any]
FLOAT_TYPES = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """The tensors of one matrix in a folder."""

    folder: SafetensorsFolder
    base: str
    """What their names begin with."""

    def name(self, suffix: str) -> str:
        return self.base + suffix

    def info(self, suffix: str) -> TensorInfo | None:
        return self.folder.tensors.get(self.name(suffix))

    def fail(self, suffix: str, reason: str) -> NoReturn:
        raise BadModelFile(
            f"quantized tensor {self.name(suffix)!r} {reason}",
            hint="bring the model again, or take a file of it that is not quantized",
        )

    def shape(self, suffix: str, types: tuple[str, ...], *expected: int | None) -> tuple[int, ...]:
        """The shape of a member, which has one of these types; None fits any size. Raises BadModelFile."""
        info = self.info(suffix)
        if info is None:
            self.fail(suffix, "is missing")
        if info.format not in types:
            self.fail(suffix, f"is {info.format}, must be {' or '.join(types)}")
        fits = len(info.shape) == len(expected) and all(
            want in (None, have) for want, have in zip(expected, info.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in expected)
            self.fail(suffix, f"has shape {info.shape}, must have ({wanted})")
        return info.shape

    def origins(self, *suffixes: str) -> tuple[Bytes, ...]:
        """The bytes of those members that there are."""
        names = (self.name(suffix) for suffix in suffixes if self.info(suffix) is not None)
        return tuple(self.folder.array(name).reshape(-1).view(np.uint8) for name in names)

    def array(self, suffix: str) -> Array:
        """The member's elements; bfloat16 and 8-bit floats as their bits."""
        return self.folder.array(self.name(suffix))

    def floats(self, suffix: str) -> Floats:
        """A member of plain numbers in float32."""
        info, found = self.info(suffix), self.array(suffix)
        if info is not None and info.format == "BF16":
            return np.left_shift(found.astype(np.uint32), np.uint32(16)).view(np.float32)
        return found.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A matrix that some tensors make up, or a stack of matrices."""

    shape: tuple[int, ...]
    """[out, in], of a stack [X, out, in]."""
    format: TensorFormat
    make: Callable[[], Bytes]
    """Its bytes in that format; raises BadModelFile for members that contradict each other."""
    part: Callable[[int], Bytes] | None = None
    """Of a stack: the bytes of one matrix of it."""


class Method(Protocol):
    """One way to quantize, with the options of a model's `quantization_config`."""

    @property
    def label(self) -> str:
        """For people: the method and what it keeps, e.g. `gptq 4-bit`."""
        ...

    @property
    def main(self) -> str:
        """The suffix of the tensor that every quantized matrix has."""
        ...

    @property
    def types(self) -> tuple[str, ...]:
        """Types of that tensor by which it is told from one that was left as it was."""
        ...

    @property
    def others(self) -> tuple[str, ...]:
        """Suffixes of what else belongs to a matrix, used or not."""
        ...

    def matrix(self, members: Members) -> Matrix:
        """The matrix that these make up. Reads no more than small tensors. Raises BadModelFile."""
        ...


def dense(values: Floats) -> Bytes:
    """Numbers as the bytes of format F32."""
    return np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)


def stored(name: str, matrix: Matrix, origins: tuple[Bytes, ...]) -> StoredTensor:
    """The matrix as a tensor, a stack as one whose matrices are made one by one."""
    part = matrix.part
    members: tuple[StoredTensor, ...] = ()
    if part is not None:
        members = tuple(
            MadeTensor(
                name=f"{name}[{i}]",
                format=matrix.format,
                shape=matrix.shape[1:],
                make=partial(part, i),
                origins=origins,
            )
            for i in range(matrix.shape[0])
        )
    return MadeTensor(
        name=name,
        format=matrix.format,
        shape=matrix.shape,
        make=matrix.make,
        origins=origins,
        members=members,
    )
