"""GGUF versions 2 and 3, read from a mapping. Nothing is trusted before it is checked.

Every count, length, offset and product is compared with the bytes that are there before anything
is allocated or mapped, so a hostile file costs at most one pass over its header.

    | magic version counts | key-value pairs | tensor infos | padding | tensor data ... |
    0                     24                 |              |         data_start
                                             offsets in infos are relative to data_start

Source: the GGUF specification of the ggml project. Differences: overlapping tensors, duplicate
names, empty dimensions and big-endian files are refused.
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, cast

from pentad.execution.formats.base import BlockFormat
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.quant import stored_bytes
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.files.cursor import Cursor
from pentad.model.files.formats import TensorInfo
from pentad.model.files.mapping import MappedFile

MAGIC: Final = b"GGUF"
MAX_KEY_BYTES: Final = 65_535
MAX_DIMENSIONS: Final = 4
MAX_DEPTH: Final = 4
MAX_ELEMENTS: Final = 1 << 23
"""Strings and inner arrays in all arrays of a file: far above any vocabulary, little enough to walk."""

_ABOUT: Final = "general."
"""Where a file tells about itself; the architecture's name among it is looked up in a table."""
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[Mapping[int, str]] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
)
"""Value type to `struct` code."""

_FORMATS: Final[Mapping[int, BlockFormat]] = MappingProxyType(
    {format.ggml: format for format in GEOMETRY.values() if format.ggml is not None}
)
"""Number of a type in files to its format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufArray:
    """An array of the metadata, checked but not decoded: vocabularies are large and often unused."""

    kind: int
    count: int
    offset: int


class GgufFile:
    """One GGUF file: metadata, tensor table and views of the tensors.

    Cost of opening: one pass over the header. Arrays are decoded when asked for.
    Raises BadModelFile, naming file and byte, for anything that is not a sound GGUF file.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    def _read(self) -> None:
        cursor = Cursor(self._file)
        if self._file.data[:4] != MAGIC:
            cursor.fail(f"it starts with {self._file.data[:4]!r}, not {MAGIC!r}")
        cursor.take(4, "magic")
        self.version = int(cursor.number("I", "version"))
        if self.version not in (2, 3):
            reason = "it is big-endian" if self.version in (2 << 24, 3 << 24) else f"version {self.version}"
            cursor.fail(f"{reason}; little-endian versions 2 and 3 are readable", 4)
        tensor_count = cursor.count("tensor count", 24)
        pair_count = cursor.count("metadata count", 13)
        pairs, self._spans = _pairs(cursor, pair_count)
        self.metadata: Mapping[str, Any] = MappingProxyType(pairs)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(self._infos(cursor, tensor_count))

    def _infos(self, cursor: Cursor, count: int) -> dict[str, TensorInfo]:
        heads: list[tuple[str, TensorFormat, tuple[int, ...], int, int]] = []
        seen: set[str] = set()
        for _ in range(count):
            start = cursor.position
            name = cursor.text("tensor name", MAX_KEY_BYTES)
            if name in seen:
                cursor.fail(f"tensor {name!r} appears twice", start)
            seen.add(name)
            heads.append((name, *_shape(cursor, name), int(cursor.number("Q", "tensor offset")), start))
        alignment = _alignment(cursor, self.metadata)
        data_start = -(-cursor.position // alignment) * alignment
        infos: dict[str, TensorInfo] = {}
        for name, kind, shape, offset, start in heads:
            size = stored_bytes(kind, shape)
            if offset % alignment:
                cursor.fail(f"tensor {name!r} starts at {offset}, no multiple of {alignment}", start)
            if data_start + offset + size > self._file.size_bytes:
                end, have = data_start + offset + size, self._file.size_bytes
                cursor.fail(f"tensor {name!r} would end at byte {end}, the file has {have}", start)
            infos[name] = TensorInfo(
                name=name, format=kind, shape=shape, offset=data_start + offset, size_bytes=size
            )
        _check_disjoint(cursor, infos)
        return infos

    def raw_pairs(self) -> dict[str, bytes]:
        """Metadata key to its type and value as they stand in the file, for writing them again."""
        return {key: bytes(self._file.data[begin:end]) for key, (begin, end) in self._spans.items()}

    def values(self, array: GgufArray) -> list[Any]:
        """The elements of an array of this file's metadata, decoded now."""
        cursor = Cursor(self._file)
        cursor.position = array.offset
        return _elements(cursor, array)

    def tensor(self, name: str) -> StoredTensor:
        """A read-only view of the tensor's blocks. Raises KeyError."""
        info = self.tensors[name]
        return StoredTensor(
            name=name,
            format=cast(TensorFormat, info.format),
            shape=info.shape,
            data=self._file.view(info.offset, info.size_bytes),
        )

    def close(self) -> None:
        """Unmaps the file, or leaves that to the last view still held."""
        self._file.close()


def _pairs(cursor: Cursor, count: int) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """The metadata, and from where to where the type and value of each entry stand."""
    pairs: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    for _ in range(count):
        start = cursor.position
        key = cursor.text("metadata key", MAX_KEY_BYTES)
        if key in pairs:
            cursor.fail(f"metadata key {key!r} appears twice", start)
        begin = cursor.position
        kind = int(cursor.number("I", "value type"))
        # Names of people and licences: nothing is computed with them, so their bytes refuse no model.
        about = key.startswith(_ABOUT)
        pairs[key] = _value(cursor, kind, f"value of {key!r}", lenient=about)
        spans[key] = (begin, cursor.position)
    return pairs, spans


def _value(cursor: Cursor, kind: int, what: str, *, lenient: bool) -> Any:
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind], what)
    if kind == _STRING:
        return cursor.text(what, lenient=lenient)
    if kind == _ARRAY:
        return _array(cursor, what, 1)
    return cursor.fail(f"{what} has the unknown type {kind}", cursor.position - 4)


def _array(cursor: Cursor, what: str, depth: int) -> GgufArray:
    """Checks an array and moves past it without decoding its elements."""
    start = cursor.position
    if depth > MAX_DEPTH:
        cursor.fail(f"{what} nests arrays deeper than {MAX_DEPTH}")
    kind = int(cursor.number("I", f"element type of {what}"))
    if kind not in _SCALARS and kind not in (_STRING, _ARRAY):
        cursor.fail(f"{what} has elements of the unknown type {kind}", start)
    least = struct.calcsize("<" + _SCALARS[kind]) if kind in _SCALARS else 8 if kind == _STRING else 12
    count = cursor.count(f"element count of {what}", least)
    array = GgufArray(kind=kind, count=count, offset=cursor.position)
    if kind in _SCALARS:
        cursor.take(count * least, what)
        return array
    cursor.elements += count
    if cursor.elements > MAX_ELEMENTS:
        cursor.fail(f"the arrays up to {what} have more than {MAX_ELEMENTS} elements", start)
    if kind == _STRING:
        cursor.strings(count, what, decode=False)
        return array
    for _ in range(count):
        _array(cursor, what, depth + 1)
    return array


def _elements(cursor: Cursor, array: GgufArray) -> list[Any]:
    if array.kind in _SCALARS:
        return list(
            struct.unpack_from(f"<{array.count}{_SCALARS[array.kind]}", cursor.file.data, array.offset)
        )
    if array.kind == _STRING:
        return cursor.strings(array.count, "an array", decode=True)
    return [_elements(cursor, _array(cursor, "nested array", 1)) for _ in range(array.count)]


def _shape(cursor: Cursor, name: str) -> tuple[TensorFormat, tuple[int, ...]]:
    start = cursor.position
    rank = int(cursor.number("I", f"rank of {name!r}"))
    if not 1 <= rank <= MAX_DIMENSIONS:
        cursor.fail(f"tensor {name!r} has {rank} dimensions, 1 to {MAX_DIMENSIONS} are allowed", start)
    sizes = [int(cursor.number("Q", f"dimensions of {name!r}")) for _ in range(rank)]
    if not all(1 <= size < 1 << 63 for size in sizes):
        cursor.fail(f"tensor {name!r} has the impossible dimensions {sizes}", start)
    kind = _FORMATS.get(number := int(cursor.number("I", f"type of {name!r}")))
    if kind is None:
        known = ", ".join(format.name for format in _FORMATS.values())
        cursor.fail(f"tensor {name!r} has ggml type {number}, readable are {known}", cursor.position - 4)
    if sizes[0] % kind.elements:
        cursor.fail(f"rows of {name!r} hold {sizes[0]} values, no multiple of {kind.name} blocks", start)
    return kind.name, tuple(reversed(sizes))


def _alignment(cursor: Cursor, metadata: Mapping[str, Any]) -> int:
    value = metadata.get("general.alignment", 32)
    if not isinstance(value, int) or not 8 <= value <= 1 << 16 or value & (value - 1):
        cursor.fail(f"general.alignment is {value!r}, must be a power of two from 8 to 65536")
    return value


def _check_disjoint(cursor: Cursor, infos: Mapping[str, TensorInfo]) -> None:
    """Overlapping tensors have no honest use, and a shared block hides what a file really holds."""
    end, before = 0, ""
    for info in sorted(infos.values(), key=lambda i: i.offset):
        if info.offset < end:
            cursor.fail(f"tensors {before!r} and {info.name!r} overlap", info.offset)
        end, before = info.offset + info.size_bytes, info.name
