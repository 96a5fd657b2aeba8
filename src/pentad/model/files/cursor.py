"""A place in a mapped file that only moves over bytes which are there."""

from __future__ import annotations

import struct
from typing import Any, Final, NoReturn

from pentad.errors import BadModelFile
from pentad.model.files.mapping import MappedFile

_LENGTH: Final = struct.Struct("<Q")


class Cursor:
    """Reads forward through a GGUF header and refuses to leave the file.

    Every refusal is a BadModelFile that names the file and the byte.
    """

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.position = 0
        self.elements = 0

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        where = self.position if at is None else at
        raise BadModelFile(f"{str(self.file.path)!r} is not a readable GGUF file: at byte {where}: {reason}")

    @property
    def left(self) -> int:
        return self.file.size_bytes - self.position

    def take(self, size_bytes: int, what: str) -> int:
        """The offset of the next `size_bytes`, and moves past them."""
        if size_bytes > self.left:
            self.fail(f"{what} needs {size_bytes} bytes, {self.left} are left")
        start = self.position
        self.position += size_bytes
        return start

    def number(self, code: str, what: str) -> Any:
        start = self.take(struct.calcsize("<" + code), what)
        return struct.unpack_from("<" + code, self.file.data, start)[0]

    def count(self, what: str, least_bytes: int) -> int:
        """A count of things of at least `least_bytes` each, which therefore must fit the rest."""
        start = self.position
        value = int(self.number("Q", what))
        if value * least_bytes > self.left:
            self.fail(f"{what} is {value}, but only {self.left} bytes are left", start)
        return value

    def text(self, what: str, limit: int | None = None, *, lenient: bool = False) -> str:
        """The next string. `lenient` reads what is no UTF-8 as Latin-1, which older tools wrote."""
        start = self.position
        length = self.count(f"length of {what}", 1)
        if limit is not None and length > limit:
            self.fail(f"{what} is {length} bytes long, at most {limit} are allowed", start)
        begin = self.take(length, what)
        data = self.file.data[begin : begin + length]
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            if lenient:
                return data.decode("latin-1")
            self.fail(f"{what} is not valid UTF-8", start)

    def strings(self, count: int, what: str, decode: bool) -> list[str]:
        """Moves past `count` strings, and returns them if asked to. One loop: vocabularies are long."""
        data, end, position = self.file.data, self.file.size_bytes, self.position
        found: list[str] = []
        for _ in range(count):
            start = position
            position += 8
            length = _LENGTH.unpack_from(data, start)[0] if position <= end else end
            if length > end - position:
                self.fail(f"a string in {what} is longer than what is left", start)
            if decode:
                try:
                    found.append(data[position : position + length].decode("utf-8"))
                except UnicodeDecodeError:
                    self.fail(f"a string in {what} is not valid UTF-8", start)
            position += length
        self.position = position
        return found
