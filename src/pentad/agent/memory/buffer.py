"""Buffer: the newest items of each agent, in the memory of the process."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pentad.agent.memory.base import Item, Memory, MemoryServices, Recollection, Scope
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
        created_s = self.wall() if item.created_s is None else item.created_s
        made = replace(item, id=item.id or f"mem_{uuid.uuid4().hex[:16]}", created_s=created_s)
        with self.lock:
            items = self.kept.setdefault((scope.tenant, scope.agent), deque(maxlen=self.most))
            if all(other.id != made.id for other in items):
                items.append(made)
        return str(made.id)

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        """The `k` newest items of the scope; the score is how new they are. Nothing for an empty cue."""
        if k < 1 or not cue.strip():
            return []
        now_s = self.wall()
        found = [item for item in self._of(scope) if item.expires_s is None or item.expires_s > now_s]
        found.sort(key=lambda item: item.created_s or 0.0)
        recollections = []
        for item in reversed(found[-k:]):
            recency = _RECENCY.fresh(now_s - (item.created_s or 0.0))
            recollections.append(
                Recollection(item=item, score=recency, similarity=0.0, keyword=0.0, recency=recency)
            )
        return recollections

    async def consolidate(self, scope: Scope) -> int:
        """Removes what has expired, and older copies of equal text and kind."""
        now_s, gone = self.wall(), 0
        with self.lock:
            for place, items in self.kept.items():
                if place[0] != scope.tenant or scope.agent not in (None, place[1]):
                    continue
                live = [item for item in items if item.expires_s is None or item.expires_s > now_s]
                newest = {(item.text, item.kind): item.id for item in live}
                left = [item for item in live if newest[item.text, item.kind] == item.id]
                gone += len(items) - len(left)
                self.kept[place] = deque(left, maxlen=self.most)
        return gone

    def close(self) -> None:
        """Forgets everything."""
        with self.lock:
            self.kept.clear()

    def _of(self, scope: Scope) -> list[Item]:
        with self.lock:
            return [
                item
                for (tenant, agent), items in self.kept.items()
                if tenant == scope.tenant and scope.agent in (None, agent)
                for item in items
            ]
