"""Levels: own memory, the team's, then documents; as far as it takes until the evidence is enough."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.agent.memory.base import Item, MemoryServices, Recollection, Scope
from pentad.agent.memory.store import Store
from pentad.agent.memory.wrapped import Wrapped
from pentad.agent.tools.documents import Documents
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Searches the agent's own items, then those of all agents of the tenant, then a folder of documents.

    A search ends at the first level that gives enough: whose nearest item has a cosine of `enough` to the
    cue. Where none does, the best of all levels come back; each says where it was found. Every level may
    change at any time: documents are read again when a file has changed.

    Source: the survey's "dynamic knowledge integration" (VII-B1). Ours takes the cosine of the nearest item
    as the evidence; the web is left to tools. Exactness: lossy; the metric is how often what answers is
    found, beside the levels that were searched. Cost: a search per level, documents are embedded once.
    """

    enough: float = 0.7
    """Cosine, 0 to 1, of the nearest item at which no further level is searched; 1 searches all."""
    team: bool = False
    """Whether what other agents of the tenant remembered is a level, after the agent's own."""
    folder: str = ""
    """Of .txt, .md and .rst files, the last level; empty has none."""

    needs: ClassVar[frozenset[str]] = Store.needs
    name: ClassVar[str] = "levels"

    def __post_init__(self) -> None:
        in_range("enough", self.enough, least=0, most=1)

    def open(self, services: MemoryServices) -> _Levelled:
        """The file's items and the folder. Raises NotFound: no such folder."""
        documents = Documents(self.folder, services.models) if self.folder else None
        return _Levelled(self, services, documents)


class _Levelled(Wrapped):
    def __init__(self, strategy: Levels, services: MemoryServices, documents: Documents | None) -> None:
        super().__init__(Store().open(services))
        self._strategy, self._documents = strategy, documents
        self._weights, self._wall = Store(), services.wall
        self.searched = {"own": 0, "team": 0, "documents": 0}
        """Searches of each level so far, for measurements."""

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        """The `k` items that matter most, of the levels up to the first that has enough."""
        if k < 1 or not cue.strip():
            return []
        found: dict[str, Recollection] = {}
        levels = [("own", scope)] if scope.agent is not None else []
        if self._strategy.team or not levels:
            levels.append(("team", Scope(tenant=scope.tenant)))
        for level, within in levels:
            self.searched[level] += 1
            for one in await self.inner.query(cue, k=k, scope=within):
                found.setdefault(str(one.item.id), _at(level, one))
            if any(one.similarity >= self._strategy.enough for one in found.values()):
                return _best(found, k)
        if self._documents is not None:
            self.searched["documents"] += 1
            for one in await self._passages(cue, k):
                found.setdefault(str(one.item.id), one)
        return _best(found, k)

    async def _passages(self, cue: str, k: int) -> list[Recollection]:
        assert self._documents is not None
        made = []
        for passage, cosine, words in await self._documents.scored(cue, k):
            digest = hashlib.sha256(f"{passage.source}\0{passage.text}".encode("utf-8", "replace"))
            item = Item(
                id=f"doc_{digest.hexdigest()[:16]}",
                text=passage.text,
                source=passage.source,
                created_s=self._wall(),
            )
            score = self._weights.score(similarity=cosine, keyword=words, recency=1.0, importance=0.5)
            one = Recollection(item=item, score=score, similarity=cosine, keyword=words, recency=1.0)
            made.append(_at("documents", one))
        return made


def _at(level: str, found: Recollection) -> Recollection:
    return replace(found, level=level)


def _best(found: dict[str, Recollection], k: int) -> list[Recollection]:
    return sorted(found.values(), key=lambda r: (-r.score, str(r.item.id)))[:k]
