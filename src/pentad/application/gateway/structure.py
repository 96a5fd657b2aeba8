"""How many values a JSON body holds, found without making any of them."""

from __future__ import annotations

from pentad.errors import InvalidRequest

SMALL_BYTES = 256 * 2**10
"""Bodies up to this size are not counted."""
MAX_VALUES = 2**18
"""Values of one body: lists, objects and their members. An object in Python takes some 100 bytes."""
_SLICE_BYTES = 256 * 2**10
"""Looked at in one go; between slices other threads have their turn at the interpreter."""


def check_structure(raw: bytes) -> None:
    """Raises InvalidRequest for a body of more than `MAX_VALUES` values.

    What is inside strings does not count. Cost: some passes over the bytes at the speed of memory.
    """
    if len(raw) <= SMALL_BYTES:
        return
    strings = values = start = 0
    inside = False
    while start < len(raw):
        part = raw[start : start + _SLICE_BYTES]
        if (len(part) - len(part.rstrip(b"\\"))) % 2:  # what the last backslash escapes comes with it
            part = raw[start : start + len(part) + 1]
        start += len(part)
        if b"\\" in part:
            part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
        quotes = part.count(b'"')
        strings += quotes
        # The strings first: more of them than values are allowed would take memory to set aside.
        if strings // 2 <= 2 * MAX_VALUES:
            values += _marks(b"".join(part.split(b'"')[inside::2]))
        inside ^= quotes % 2 == 1
        if strings // 2 > 2 * MAX_VALUES or values > MAX_VALUES:
            raise InvalidRequest(
                f"the body holds more than {MAX_VALUES} values",
                hint="send fewer or longer ones",
                param="body",
            )


def _marks(bare: bytes) -> int:
    return bare.count(b",") + bare.count(b"[") + bare.count(b"{")
