"""mllm's weight files, of its first and its second form."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

from pentad.errors import BadModelFile
from pentad.model.exports.base import Exported

_FIRST, _SECOND = 20012, 0x519A
_HEADER = struct.Struct("<ii512sIQ")
"""Of the second form: magic, version, name, number of tensors, where their descriptions are."""
_TENSOR = struct.Struct("<IIQQQ16i256s")
"""Of the second form: number, type, bytes, offset, dimensions, shape, name."""
MAX_TENSORS = 1 << 20
MAX_NAME_BYTES = 4096


def read_mllm(path: pathlib.Path) -> Exported:
    """Source: mllm, mllm/core/ParameterFile.hpp (forms 1 and 2); every tensor must lie within the file."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            (magic,) = struct.unpack("<i", _read(file, 4, path))
            if magic == _FIRST:
                tensors, form = list(_first(file, path)), 1
            elif magic == _SECOND:
                tensors, form = list(_second(file, path)), 2
            else:
                raise BadModelFile(
                    f"{path} begins with {magic}, which no file of mllm does",
                    hint="convert the model with mllm",
                )
    except OSError as error:
        raise BadModelFile(f"{path} cannot be read: {error}") from error
    for name, offset, length in tensors:
        if offset + length > size:
            raise BadModelFile(
                f"{path} ends at {size}, its tensor {name!r} at {offset + length}", hint="copy it again"
            )
    if not tensors:
        raise BadModelFile(f"{path} has no tensors", hint="convert the model with mllm")
    return Exported(format=f"mllm-{form}", size_bytes=sum(length for _, _, length in tensors))


def _first(file: BinaryIO, path: pathlib.Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and length of each tensor."""
    (length,) = struct.unpack("<Q", _read(file, 8, path))
    end = file.tell() + length
    for _ in range(MAX_TENSORS):
        if file.tell() >= end:
            return
        (letters,) = struct.unpack("<i", _read(file, 4, path))
        if not 0 <= letters <= MAX_NAME_BYTES:
            raise BadModelFile(f"{path} has a name of {letters} bytes at {file.tell() - 4}")
        name = _read(file, letters, path).decode("utf-8", "replace")
        bytes, offset, _type = struct.unpack("<QQi", _read(file, 20, path))
        yield name, offset, bytes
    raise BadModelFile(f"{path} has more than {MAX_TENSORS} tensors")


def _second(file: BinaryIO, path: pathlib.Path) -> Iterator[tuple[str, int, int]]:
    file.seek(0)
    _, version, _, count, at = _HEADER.unpack(_read(file, _HEADER.size, path))
    if version != 2 or count > MAX_TENSORS:
        raise BadModelFile(f"{path} is of version {version} with {count} tensors; version 2 is read")
    file.seek(at)
    for _ in range(count):
        found = _TENSOR.unpack(_read(file, _TENSOR.size, path))
        dimensions, name = found[4], found[-1].split(b"\0")[0].decode("utf-8", "replace")
        if dimensions > 16:
            raise BadModelFile(f"{path} has {name!r} with {dimensions} dimensions; there are at most 16")
        yield name, found[3], found[2]


def _read(file: BinaryIO, count: int, path: pathlib.Path) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise BadModelFile(f"{path} ends after {file.tell()} bytes, in its table", hint="copy it again")
    return found
