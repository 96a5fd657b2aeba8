"""Wire: the messages of one protocol as bytes, by type and version."""

from __future__ import annotations

import hashlib
from types import UnionType
from typing import Any

import msgspec

from pentad.errors import BackendFailed


class NotOfThisWire(BackendFailed):
    """Bytes that are no message of the protocol."""


class Wire:
    """MessagePack of tagged structs: what does not decode to one of the types is refused, whole.

    No type is looked up by name and no code is run by what comes in, so bytes of a stranger do no more
    than be refused. Thread-safe. Cost: some microseconds per message.

    Args:
        name: of the protocol.
        version: raised with every change that older members would misread.
        types: union of the tagged `msgspec.Struct`s that may be sent.
    """

    def __init__(self, name: str, version: int, types: UnionType | type) -> None:
        self.name = name
        self.version = version
        self.types: Any = types
        self.digest = hashlib.sha256(name.encode()).digest()[:8]
        """Tells protocols apart when a link is made."""
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(types)

    def encode(self, message: Any) -> bytes:
        """The message as bytes."""
        assert isinstance(message, self.types), f"{type(message).__name__} is no message of {self.name}"
        return self._encoder.encode(message)

    def decode(self, data: bytes | bytearray | memoryview) -> Any:
        """The message that the bytes hold. Raises NotOfThisWire."""
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise NotOfThisWire(f"no message of {self.name} {self.version}: {error}") from None
