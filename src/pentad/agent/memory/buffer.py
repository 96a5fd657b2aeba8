"""Buffer: the newest items of each agent, in the memory of the process."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pentad.agent.memory.base import (
    Experience,
    Item,
    Memory,
    MemoryServices,
    Occasion,
    Recollection,
    Scope,
)
from pentad.agent.memory.episodes import episode
from pentad.agent.memory.lineage import Link, all_there, lineage
from pentad.agent.memory.scoring import Weights
from pentad.ranges import in_range
from pentad.types import Clock

_RECENCY = Weights()


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """Remembers the newest items and recalls them newest first, whatever they are about; needs no model.

    It is gone with the process, so nothing that an agent was told stays on a disk. Exactness: lossy;
    the oldest items go first. Cost: none.
    """

    most_items: int = 64
    """Kept of each agent of a tenant."""

    needs: ClassVar[frozenset[str]] = frozenset()
    name: ClassVar[str] = "buffer"

    def __post_init__(self) -> None:
        in_range("most_items", self.most_items, least=1)

    def open(self, services: MemoryServices) -> Memory:
        """An empty buffer."""
        return _Items(most=self.most_items, wall=services.wall)


@dataclass
class _Items:
    """The items by tenant and agent, oldest first."""

    most: int
    wall: Clock
    kept: dict[tuple[str, str | None], deque[Item]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def write(self, item: Item, scope: Scope) -> str:
        """Keeps an item; the oldest goes where there are too many."""
        with self.lock:
            return self._keep(item, scope)

    async def supersede(self, ident: str, item: Item, scope: Scope) -> str:
        """Keeps `item` in place of another. Raises NotFound."""
        with self.lock:
            old = [items for items in self._places(scope) if any(other.id == ident for other in items)]
            all_there([ident], [ident] * len(old))
            by = self._keep(item, scope)
            for items in old:
                held = [replace(o, superseded_by=by) if o.id == ident else o for o in items]
                items.clear()
                items.extend(held)
        return by

    async def forget(self, idents: Sequence[str], scope: Scope) -> list[str]:
        """Removes items with their versions and what was made of them. Raises NotFound."""
        with self.lock:
            all_there(idents, [str(item.id) for items in self._places(scope) for item in items])
            everything = self._places(Scope(tenant=scope.tenant))
            links = [Link(str(i.id), i.superseded_by, i.derived_from) for items in everything for i in items]
            gone = set(lineage(idents, links)) & {link.id for link in links}
            for items in everything:
                left = [item for item in items if item.id not in gone]
                items.clear()
                items.extend(left)
        return sorted(gone)

    async def items(self, scope: Scope) -> list[Item]:
        """All that is kept of the scope, oldest first."""
        with self.lock:
            kept = [item for items in self._places(scope) for item in items]
        return sorted(kept, key=lambda item: item.created_s or 0.0)

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        """The `k` newest items of the scope; the score is how new they are. Nothing for an empty cue."""
        if k < 1 or not cue.strip():
            return []
        now_s = self.wall()
        found = [
            item
            for item in await self.items(scope)
            if item.superseded_by is None and (item.expires_s is None or item.expires_s > now_s)
        ]
        recollections = []
        for item in reversed(found[-k:]):
            recency = _RECENCY.fresh(now_s - (item.created_s or 0.0))
            recollections.append(
                Recollection(item=item, score=recency, similarity=0.0, keyword=0.0, recency=recency)
            )
        return recollections

    async def recall(self, occasion: Occasion, *, k: int, scope: Scope) -> list[Recollection]:
        """The `k` newest items."""
        return await self.query(occasion.goal, k=k, scope=scope)

    async def item(self, ident: str, scope: Scope) -> Item | None:
        """The item of that id, whatever has become of it; None for none in the scope."""
        return next((item for item in await self.items(scope) if item.id == ident), None)

    async def learn(self, experience: Experience, scope: Scope) -> None:
        """Keeps an answered run as an episode."""
        if (item := episode(experience)) is not None:
            await self.write(item, scope)

    async def consolidate(self, scope: Scope) -> int:
        """Removes what has expired, and older copies of equal text and kind."""
        now_s, gone = self.wall(), 0
        with self.lock:
            for items in self._places(scope):
                live = [item for item in items if item.expires_s is None or item.expires_s > now_s]
                newest = {(i.text, i.kind): i.id for i in live if i.superseded_by is None}
                left = [i for i in live if i.superseded_by or newest[i.text, i.kind] == i.id]
                gone += len(items) - len(left)
                items.clear()
                items.extend(left)
        return gone

    def close(self) -> None:
        """Forgets everything."""
        with self.lock:
            self.kept.clear()

    def _keep(self, item: Item, scope: Scope) -> str:
        created_s = self.wall() if item.created_s is None else item.created_s
        made = replace(item, id=item.id or f"mem_{uuid.uuid4().hex[:16]}", created_s=created_s)
        items = self.kept.setdefault((scope.tenant, scope.agent), deque(maxlen=self.most))
        if all(other.id != made.id for other in items):
            items.append(made)
        return str(made.id)

    def _places(self, scope: Scope) -> list[deque[Item]]:
        return [
            items
            for (tenant, agent), items in self.kept.items()
            if tenant == scope.tenant and scope.agent in (None, agent)
        ]
