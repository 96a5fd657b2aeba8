"""Rethink: after a run, what it left is compared with what was known; doubles merge, the newer fact holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.memory.base import Experience, Item, MemoryServices, Scope, Think
from pentad.agent.memory.store import Store
from pentad.agent.memory.wrapped import Wrapped
from pentad.ranges import in_range

_COMPARE = (
    "You keep a notebook. Compare an old note with a new one and answer with one word. SAME: the new note "
    "says what the old one says. CHANGED: both cannot be true now, the new one replaces the old. OTHER: else."
)
_GATHER = (
    "Put these notes into one short sentence. Keep every name and number. Answer with the sentence alone."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rethink:
    """Keeps items as `store` does, and after each run refines them: merges, corrects and sums up.

    What the run left is compared with its nearest older items by the run's own model. An old item that
    says the same, or that can no longer be true, is superseded: kept, linked, never recalled. Many items
    near one another are put into one sentence, made of them, which takes their place in what is recalled.

    Source: the survey's "rethinking" (III-C): refine, organise, integrate. Exactness: lossy; the metric is
    the accuracy of answers beside the store's size. Cost: at most `questions` short model calls per run.
    """

    near: float = 0.6
    """Cosine, 0 to 1, from which an older item is compared with a new one."""
    gather: int = 6
    """Items as near as that to one another from which they are put into one; 0 never does."""
    questions: int = 8
    """Model calls of one run, at most."""

    needs: ClassVar[frozenset[str]] = Store.needs
    name: ClassVar[str] = "rethink"

    def __post_init__(self) -> None:
        in_range("near", self.near, least=0, most=1)
        in_range("gather", self.gather, least=0)
        in_range("questions", self.questions, least=0)

    def open(self, services: MemoryServices) -> _Refined:
        """The file's items."""
        return _Refined(self, services)


class _Refined(Wrapped):
    def __init__(self, strategy: Rethink, services: MemoryServices) -> None:
        super().__init__(Store().open(services))
        self._strategy = strategy

    async def learn(self, experience: Experience, scope: Scope) -> None:
        """Keeps the episode, then goes through what the run left, oldest first."""
        await self.inner.learn(experience, scope)
        left = self._strategy.questions
        for item in await self.items(scope):
            if item.source != experience.run_id or item.kind == "episode" or item.superseded_by is not None:
                continue
            left = await self._compare(item, scope, experience.think, left)
            left = await self._gather(item, scope, experience.think, left)

    async def _compare(self, item: Item, scope: Scope, think: Think, left: int) -> int:
        for old in await self._around(item, scope):
            if left < 1:
                break
            left -= 1
            said = await think(_COMPARE, f"Old note: {old.text}\nNew note: {item.text}", 4)
            if re.search(r"\b(SAME|CHANGED)\b", said.upper()):
                await self.supersede(str(old.id), item, scope)
        return left

    async def _gather(self, item: Item, scope: Scope, think: Think, left: int) -> int:
        group = [item, *(await self._around(item, scope))]
        if left < 1 or not self._strategy.gather or len(group) < self._strategy.gather:
            return left
        group.sort(key=lambda one: (one.created_s or 0.0, str(one.id)))
        said = await think(_GATHER, "\n".join(f"- {one.text}" for one in group), 96)
        if said.strip():
            whole = Item(
                id=f"{item.id}.whole",
                text=said.strip(),
                kind=item.kind,
                source=item.source,
                importance=max(one.importance for one in group),
                derived_from=tuple(str(one.id) for one in group),
            )
            for one in group:
                await self.supersede(str(one.id), whole, scope)
        return left - 1

    async def _around(self, item: Item, scope: Scope) -> list[Item]:
        """The other items of its kind that are near in meaning, nearest first."""
        found = await self.query(item.text, k=max(8, 2 * self._strategy.gather), scope=scope)
        near = [r for r in found if r.similarity >= self._strategy.near and r.item.id != item.id]
        near.sort(key=lambda r: (-r.similarity, str(r.item.id)))
        return [r.item for r in near if r.item.kind == item.kind]
