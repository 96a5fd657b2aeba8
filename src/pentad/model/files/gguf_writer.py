"""Writing GGUF version 3: the table first, then each tensor's bytes as they come."""

from __future__ import annotations

import os
import pathlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from pentad.execution.formats.table import GEOMETRY
from pentad.execution.quant import stored_bytes
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.files.gguf import MAGIC

ALIGNMENT: Final = 32
_VERSION: Final = 3
_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorHead:
    """What the table says of a tensor."""

    name: str
    format: TensorFormat
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return stored_bytes(self.format, self.shape)


class GgufWriter:
    """Writes one file, to the disk and under its name only once it is whole.

    Use as a context manager and give every tensor of the table once, in its order; leaving it
    early, or by an error, leaves nothing behind.

    Args:
        path: where the file appears.
        pairs: metadata key to its encoded type and value: `GgufFile.raw_pairs`, `encode_value`.
        heads: the table.
    """

    def __init__(self, path: pathlib.Path, pairs: Mapping[str, bytes], heads: Iterable[TensorHead]) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._heads = list(heads)
        self._next = 0
        self._out = self._part.open("wb")
        self._out.write(_header(pairs, self._heads))

    def __enter__(self) -> Self:
        return self

    def put(self, tensor: StoredTensor) -> None:
        """The next tensor of the table. Raises ValueError for any other."""
        head = self._heads[self._next]
        if (tensor.name, tensor.format, tensor.shape) != (head.name, head.format, head.shape):
            raise ValueError(f"tensor {tensor.name!r} {tensor.format} {tensor.shape} is not next: {head}")
        if tensor.data.nbytes != head.size_bytes:
            raise ValueError(f"tensor {tensor.name!r} has {tensor.data.nbytes} bytes, not {head.size_bytes}")
        self._out.write(tensor.data.data)
        self._out.write(b"\0" * (-head.size_bytes % ALIGNMENT))
        self._next += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        whole = kind is None and self._next == len(self._heads)
        if whole:
            self._out.flush()
            os.fsync(self._out.fileno())
        self._out.close()
        if whole:
            self._part.replace(self._path)
            return
        self._part.unlink(missing_ok=True)
        if kind is None:
            raise ValueError(f"{len(self._heads) - self._next} tensors of the table were not given")


def encode_value(value: Any) -> bytes:
    """Type and value of a metadata entry: text, truth value, number of 32 bits, or a tuple of integers.

    Raises TypeError for anything else.
    """
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _UINT32, value)
        case float():
            return struct.pack("<If", _FLOAT32, value)
        case str():
            return struct.pack("<I", _STRING) + _text(value)
        case tuple():
            return struct.pack(f"<IIQ{len(value)}I", _ARRAY, _UINT32, len(value), *value)
        case _:
            raise TypeError(f"{type(value).__name__} is not written to GGUF metadata")


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _header(pairs: Mapping[str, bytes], heads: list[TensorHead]) -> bytes:
    pairs = {key: value for key, value in pairs.items() if key != "general.alignment"}
    parts = [MAGIC, struct.pack("<IQQ", _VERSION, len(heads), len(pairs))]
    for key, value in pairs.items():
        parts += (_text(key), value)
    offset = 0
    for head in heads:
        shape = struct.pack(f"<I{len(head.shape)}Q", len(head.shape), *reversed(head.shape))
        parts += (_text(head.name), shape, struct.pack("<IQ", GEOMETRY[head.format].ggml, offset))
        offset += -(-head.size_bytes // ALIGNMENT) * ALIGNMENT
    header = b"".join(parts)
    return header + b"\0" * (-len(header) % ALIGNMENT)
