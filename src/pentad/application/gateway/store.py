"""Stored responses: bounded, apart by tenant, the oldest forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from pentad.application.gateway.schemas.responses import ResponseObject
from pentad.types import Message

_ENTRY_BYTES = 400
"""What an entry costs beside its two texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One response and the conversation up to and including it, without instructions."""

    response: ResponseObject
    turns: tuple[Message, ...]


class ResponseStore:
    """Keeps responses in memory, as JSON, within `limit_bytes` over all tenants.

    Memory is the honest promise here: a response id is good until the server restarts or newer
    ones need the room, and then answers 404.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[tuple[str, str], tuple[bytes, bytes]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, tenant: str, response: ResponseObject, turns: tuple[Message, ...]) -> None:
        """Stores or replaces a response; one larger than the whole store is not kept."""
        self.remove(tenant, response.id)
        entry = (msgspec.json.encode(response), msgspec.json.encode(turns))
        size = _size(entry)
        if size > self._limit_bytes:
            return
        self._entries[tenant, response.id] = entry
        self.size_bytes += size
        while self.size_bytes > self._limit_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.size_bytes -= _size(oldest)

    def get(self, tenant: str, response_id: str) -> Stored | None:
        """The response, if it is this tenant's and still kept."""
        entry = self._entries.get((tenant, response_id))
        if entry is None:
            return None
        response, turns = entry
        return Stored(
            response=msgspec.json.decode(response, type=ResponseObject),
            turns=msgspec.json.decode(turns, type=tuple[Message, ...]),
        )

    def remove(self, tenant: str, response_id: str) -> bool:
        """Forgets a response. Returns whether it was there."""
        entry = self._entries.pop((tenant, response_id), None)
        if entry is not None:
            self.size_bytes -= _size(entry)
        return entry is not None


def _size(entry: tuple[bytes, bytes]) -> int:
    return _ENTRY_BYTES + len(entry[0]) + len(entry[1])
