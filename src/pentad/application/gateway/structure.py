"""How many values a JSON body holds, found without making any of them."""

from __future__ import annotations

from pentad.errors import InvalidRequest

SMALL_BYTES = 256 * 2**10
"""Bodies up to this size are not counted."""
MAX_VALUES = 2**18
"""Values of one body: lists, objects and their members. An object in Python takes some 100 bytes."""


def check_structure(raw: bytes) -> None:
    """Raises InvalidRequest for a body of more than `MAX_VALUES` values.

    What is inside strings does not count. Cost: some passes over the bytes at the speed of memory.
    """
    if len(raw) <= SMALL_BYTES:
        return
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # The strings first: more of them than values are allowed would take memory to set aside.
    if raw.count(b'"') // 2 > 2 * MAX_VALUES or _marks(b"".join(raw.split(b'"')[::2])) > MAX_VALUES:
        raise InvalidRequest(
            f"the body holds more than {MAX_VALUES} values", hint="send fewer or longer ones", param="body"
        )


def _marks(bare: bytes) -> int:
    return bare.count(b",") + bare.count(b"[") + bare.count(b"{")
