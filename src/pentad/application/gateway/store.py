"""Stored responses: bounded, apart by tenant, the oldest forgotten first."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

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
    ones need the room, and then answers 404. Room is made at the expense of the tenant that
    takes the most, so nobody loses responses to another who stores more.

    Args:
        share: the largest part of the room that one tenant may take.
    """

    def __init__(self, limit_bytes: int, *, share: float = 1.0) -> None:
        self._limit_bytes = limit_bytes
        self._most_bytes = int(limit_bytes * share)
        self._entries: dict[str, OrderedDict[str, tuple[bytes, bytes]]] = {}
        self._sizes: Counter[str] = Counter()
        self._holders: dict[tuple[str, str], str] = {}
        """Tenant and id of an output item to the response that holds it."""

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    @property
    def size_bytes(self) -> int:
        """Room taken by all tenants."""
        return self._sizes.total()

    def put(self, tenant: str, response: ResponseObject, turns: tuple[Message, ...]) -> None:
        """Stores or replaces a response; one larger than the tenant's room is not kept."""
        self.remove(tenant, response.id)
        entry = (msgspec.json.encode(response), msgspec.json.encode(turns))
        size = _size(entry)
        if size > self._most_bytes:
            return
        self._entries.setdefault(tenant, OrderedDict())[response.id] = entry
        self._holders |= {(tenant, item["id"]): response.id for item in response.output}
        self._sizes[tenant] += size
        while self._sizes[tenant] > self._most_bytes:
            self._forget_oldest(tenant)
        while self.size_bytes > self._limit_bytes:
            self._forget_oldest(max(self._sizes, key=self._sizes.__getitem__))

    def _forget_oldest(self, tenant: str) -> None:
        self.remove(tenant, next(iter(self._entries[tenant])))

    def get(self, tenant: str, response_id: str) -> Stored | None:
        """The response, if it is this tenant's and still kept."""
        own = self._entries.get(tenant)
        entry = None if own is None else own.get(response_id)
        if entry is None:
            return None
        response, turns = entry
        return Stored(
            response=msgspec.json.decode(response, type=ResponseObject),
            turns=msgspec.json.decode(turns, type=tuple[Message, ...]),
        )

    def item(self, tenant: str, item_id: str) -> dict[str, Any] | None:
        """An item of a kept response's output, if it is this tenant's."""
        held = self._holders.get((tenant, item_id))
        stored = None if held is None else self.get(tenant, held)
        output = [] if stored is None else stored.response.output
        return next((item for item in output if item["id"] == item_id), None)

    def remove(self, tenant: str, response_id: str) -> bool:
        """Forgets a response. Returns whether it was there."""
        own = self._entries.get(tenant)
        entry = None if own is None else own.pop(response_id, None)
        if own is None or entry is None:
            return False
        self._sizes[tenant] -= _size(entry)
        for item in msgspec.json.decode(entry[0], type=ResponseObject).output:
            self._holders.pop((tenant, item["id"]), None)
        if not own:
            del self._entries[tenant], self._sizes[tenant]
        return True


def _size(entry: tuple[bytes, bytes]) -> int:
    return _ENTRY_BYTES + len(entry[0]) + len(entry[1])
