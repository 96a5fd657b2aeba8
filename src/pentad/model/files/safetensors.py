"""safetensors files and sharded folders, read from mappings with every offset checked.

    | header length, 8 bytes | header, JSON | tensor data ... |
    0                        8              data_start
                                     offsets in the header are relative to data_start

Source: the format description of the safetensors project. Like it, we refuse overlaps and gaps.
"""

from __future__ import annotations

import json
import pathlib
import struct
from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from pentad.errors import BadModelFile
from pentad.execution.weights import StoredTensor, TensorFormat
from pentad.model.files.formats import TensorInfo
from pentad.model.files.mapping import MappedFile

MAX_HEADER_BYTES: Final = 100_000_000
MAX_DIMENSIONS: Final = 8
INDEX_NAME: Final = "model.safetensors.index.json"
MAX_INDEX_BYTES: Final = 1 << 26

_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BOOL": "?",
        "U8": "u1",
        "I8": "i1",
        "F8_E4M3": "u1",
        "F8_E5M2": "u1",
        "F16": "<f2",
        "BF16": "<u2",
        "U16": "<u2",
        "I16": "<i2",
        "F32": "<f4",
        "U32": "<u4",
        "I32": "<i4",
        "F64": "<f8",
        "U64": "<u8",
        "I64": "<i8",
    }
)
"""Element types by name to those of numpy, or to their bits where it has none."""
_PLAIN: Final = frozenset({"F32", "F16", "BF16"})
"""Types whose elements are weights as they stand."""


class SafetensorsFile:
    """One `.safetensors` file. Raises BadModelFile, naming file and cause, for an unsound one."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        try:
            self.tensors: Mapping[str, TensorInfo] = MappingProxyType(self._infos())
        except BaseException:
            self._file.close()
            raise

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    def _fail(self, reason: str, at: int) -> BadModelFile:
        return BadModelFile(f"{str(self.path)!r} is not a readable safetensors file: at byte {at}: {reason}")

    def _header(self) -> tuple[dict[str, Any], int]:
        size = self._file.size_bytes
        if size < 8:
            raise self._fail(f"the file has {size} bytes, its header length alone takes 8", 0)
        (length,) = struct.unpack_from("<Q", self._file.data, 0)
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise self._fail(f"a header of {length} bytes does not fit the {size - 8} that follow", 0)
        try:
            header = json.loads(self._file.data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise self._fail(f"the header is not valid JSON: {error}", 8) from error
        if not isinstance(header, dict):
            raise self._fail("the header is no object", 8)
        return header, 8 + length

    def _infos(self) -> dict[str, TensorInfo]:
        header, data_start = self._header()
        header.pop("__metadata__", None)
        infos = {name: self._info(name, entry, data_start) for name, entry in header.items()}
        end = data_start
        for info in sorted(infos.values(), key=lambda i: (i.offset, i.size_bytes)):
            if info.offset != end:
                relation = "overlaps the one before" if info.offset < end else "leaves a gap before it"
                raise self._fail(f"tensor {info.name!r} {relation}", info.offset)
            end += info.size_bytes
        if end != self._file.size_bytes:
            raise self._fail(f"tensors end here, the file at {self._file.size_bytes}", end)
        return infos

    def _info(self, name: str, entry: Any, data_start: int) -> TensorInfo:
        entry = entry if isinstance(entry, dict) else {}
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in _TYPES:
            raise self._fail(f"tensor {name!r} has the unknown type {str(dtype)[:40]!r}", 8)
        if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
            raise self._fail(f"tensor {name!r} has the impossible shape {str(shape)[:80]}", 8)
        if not _naturals(offsets) or len(offsets) != 2:
            raise self._fail(f"tensor {name!r} has the impossible offsets {str(offsets)[:80]}", 8)
        begin, end = offsets
        size = prod(shape) * np.dtype(_TYPES[dtype]).itemsize
        if end - begin != size:
            raise self._fail(f"tensor {name!r} of {size} bytes has offsets {begin} to {end}", 8)
        if data_start + end > self._file.size_bytes:
            have = self._file.size_bytes
            raise self._fail(f"tensor {name!r} would end at byte {data_start + end}, the file has {have}", 8)
        return TensorInfo(
            name=name, format=dtype, shape=tuple(shape), offset=data_start + begin, size_bytes=size
        )

    def tensor(self, name: str) -> StoredTensor:
        """A read-only view of the tensor. Raises KeyError, BadModelFile for a type that holds no weights."""
        info = self.tensors[name]
        if info.format not in _PLAIN:
            raise BadModelFile(
                f"{str(self.path)!r}: tensor {name!r} is {info.format}, weights are F32, F16 or BF16"
            )
        return StoredTensor(
            name=name,
            format=cast(TensorFormat, info.format),
            shape=info.shape,
            data=self._file.view(info.offset, info.size_bytes),
        )

    def array(self, name: str) -> npt.NDArray[Any]:
        """A read-only view of the tensor's elements, whatever they are; bfloat16 and 8-bit floats as bits.

        Raises KeyError.
        """
        info = self.tensors[name]
        return self._file.view(info.offset, info.size_bytes).view(_TYPES[info.format]).reshape(info.shape)

    def close(self) -> None:
        """Unmaps the file, or leaves that to the last view still held."""
        self._file.close()


class SafetensorsFolder:
    """The tensors of all files of a folder, whole or sharded by an index."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._files: dict[str, SafetensorsFile] = {}
        self._where: dict[str, SafetensorsFile] = {}
        try:
            for name in shard_names(folder):
                self._add(SafetensorsFile(folder / name), name)
        except BaseException:
            self.close()
            raise
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: file.tensors[name] for name, file in self._where.items()}
        )

    def _add(self, file: SafetensorsFile, name: str) -> None:
        self._files[name] = file
        for tensor in file.tensors:
            if tensor in self._where:
                other = self._where[tensor].path
                raise BadModelFile(f"tensor {tensor!r} is in both {str(other)!r} and {str(file.path)!r}")
            self._where[tensor] = file

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self._files.values())

    def tensor(self, name: str) -> StoredTensor:
        """A read-only view of the tensor. Raises KeyError, BadModelFile."""
        return self._where[name].tensor(name)

    def array(self, name: str) -> npt.NDArray[Any]:
        """A read-only view of the tensor's elements; see `SafetensorsFile.array`. Raises KeyError."""
        return self._where[name].array(name)

    def close(self) -> None:
        """Unmaps all files."""
        for file in self._files.values():
            file.close()


def shard_names(folder: pathlib.Path) -> tuple[str, ...]:
    """The weight files of a folder: the index's shards, or `model.safetensors`.

    Shards are plain names inside the folder; an index that points elsewhere is refused.
    """
    index = folder / INDEX_NAME
    if not index.exists():
        return ("model.safetensors",)
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise BadModelFile(f"{str(index)!r} is larger than {MAX_INDEX_BYTES} bytes")
    try:
        entries = json.loads(index.read_bytes())["weight_map"].values()
        names = tuple(sorted({str(name) for name in entries}))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadModelFile(f"{str(index)!r} holds no weight_map: {error}") from error
    for name in names:
        if pathlib.PurePath(name).name != name or "\0" in name or not name.endswith(".safetensors"):
            raise BadModelFile(f"{str(index)!r} names the shard {name!r}, which is no file of this folder")
    return names


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different: a repeated name would hide a tensor from the checks."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in value)
