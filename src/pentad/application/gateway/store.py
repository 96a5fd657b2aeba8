"""Stored responses: bounded, apart by tenant, the oldest forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from pentad.application.gateway.schemas.responses import ResponseObject
from pentad.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One response and the conversation up to and including it, without instructions."""

    response: ResponseObject
    turns: tuple[Message, ...]
    size_bytes: int


class ResponseStore:
    """Keeps responses in memory, within `limit_bytes` over all tenants.

    Memory is the honest promise here: a response id is good until the server restarts or newer
    ones need the room, and then answers 404.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[tuple[str, str], Stored] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, tenant: str, response: ResponseObject, turns: tuple[Message, ...]) -> None:
        """Stores or replaces a response; one larger than the whole store is not kept."""
        self.remove(tenant, response.id)
        size = len(msgspec.json.encode(response)) + sum(_size(turn) for turn in turns)
        if size > self._limit_bytes:
            return
        self._entries[tenant, response.id] = Stored(response=response, turns=turns, size_bytes=size)
        self.size_bytes += size
        while self.size_bytes > self._limit_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.size_bytes -= oldest.size_bytes

    def get(self, tenant: str, response_id: str) -> Stored | None:
        """The response, if it is this tenant's and still kept."""
        return self._entries.get((tenant, response_id))

    def remove(self, tenant: str, response_id: str) -> bool:
        """Forgets a response. Returns whether it was there."""
        stored = self._entries.pop((tenant, response_id), None)
        if stored is not None:
            self.size_bytes -= stored.size_bytes
        return stored is not None


def _size(turn: Message) -> int:
    return 200 + len(turn.content) + sum(100 + len(call.arguments) for call in turn.tool_calls)
