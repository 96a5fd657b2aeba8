"""The wire form of Protocol Buffers: fields of a message by number, bounds checked, without a schema."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pentad.errors import BadModelFile

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; groups are not read."""
_MAX_VARINT_BYTES = 10


@dataclass(frozen=True, slots=True)
class WireField:
    """One field as it stands in the bytes."""

    number: int
    kind: int
    value: int | bytes
    """An unsigned integer for varints and fixed widths, else the bytes within."""

    def integer(self) -> int:
        """The value as a signed 64-bit integer, as int32, bool and enums are written."""
        value = self.value
        if isinstance(value, bytes):
            raise ValueError(f"field {self.number} is no integer")
        return value - (1 << 64) if value >= 1 << 63 else value

    def number32(self) -> float:
        """The value as a 32-bit float."""
        if self.kind != FIXED32 or isinstance(self.value, bytes):
            raise ValueError(f"field {self.number} is no float")
        found: float = struct.unpack("<f", self.value.to_bytes(4, "little"))[0]
        return found

    def data(self) -> bytes:
        """The value as bytes: a text or a message."""
        if not isinstance(self.value, bytes):
            raise ValueError(f"field {self.number} holds no bytes")
        return self.value


def fields(data: bytes, source: str) -> Iterator[WireField]:
    """The fields of a message in order. Raises BadModelFile, naming the source, where the bytes are none."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at, source)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at, source)
            yield WireField(number, kind, value)
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
        if kind == BYTES:
            size, at = _varint(data, at, source)
        if number == 0 or size < 0 or size > len(data) - at:
            raise BadModelFile(f"{source!r} is no message of Protocol Buffers: field {number} at byte {at}")
        piece = data[at : at + size]
        at += size
        yield WireField(number, kind, piece if kind == BYTES else int.from_bytes(piece, "little"))


def _varint(data: bytes, at: int, source: str) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + _MAX_VARINT_BYTES]:
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
    raise BadModelFile(f"{source!r} is no message of Protocol Buffers: endless integer at byte {at}")
