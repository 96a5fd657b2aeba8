"""LongTerm: memories that outlive the run, in one SQLite file with vectors and full text."""

from __future__ import annotations

import asyncio
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar, cast

from pentad.agent.embedding import embed_beginnings
from pentad.agent.memory import file
from pentad.agent.memory.base import Experience, Item, MemoryServices, Occasion, Recollection, Scope
from pentad.agent.memory.episodes import episode
from pentad.agent.memory.scoring import Weights
from pentad.agent.memory.search import Search
from pentad.agent.ports import ModelPort
from pentad.agent.sqlite import storable
from pentad.errors import Conflict
from pentad.types import Clock

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Store(Weights):
    """Remembers in a file and recalls by meaning, words, age and importance; outlives the process.

    Source: Park et al. 2023, "Generative Agents", section 4.1; `Weights` says what differs. Exactness:
    lossy; the metric is recall of the item that answers. Cost: one embedding per item and per query.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"embedder", "file"})
    name: ClassVar[str] = "store"

    def open(self, services: MemoryServices) -> LongTerm:
        """The file's items under these weights; several may be open on one file."""
        assert services.path is not None, "whoever opens it has looked at its needs"
        assert services.embedder is not None, "whoever opens it has looked at its needs"
        return LongTerm(
            services.path, services.models, embedder=services.embedder, weights=self, wall=services.wall
        )


class LongTerm:
    """Keeps typed items per tenant and recalls those that matter to a cue; `Search` says how.

    Args:
        path: the SQLite file.
        models: embeds texts.
        embedder: the embedding model's name; a file is tied to the one that made its vectors.
        weights: how the scores are mixed.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        path: pathlib.Path | str,
        models: ModelPort,
        *,
        embedder: str = "minilm",
        weights: Weights | None = None,
        wall: Clock = time.time,
    ) -> None:
        self.path = pathlib.Path(path)
        self._models, self._embedder, self._wall = models, embedder, wall
        self._lock = threading.Lock()
        self._indexed = False
        with file.translated(self.path):
            self._db = file.open_file(self.path)
            self._look()
        self._search = Search(self._db, weights or Weights())

    async def write(self, item: Item, scope: Scope) -> str:
        """Keeps an item. Raises ContextLengthExceeded when it is too long to embed."""
        return (await self.write_all([item], scope))[0]

    async def write_all(self, items: Sequence[Item], scope: Scope) -> list[str]:
        """Keeps several items in one transaction; their vectors are computed together."""
        made = [self._made(item) for item in items]
        vectors = (await self._models.embed(self._embedder, [item.text for item in made])).vectors

        def insert() -> None:
            with self._db:
                self._index(len(vectors[0]))
                for item, vector in zip(made, vectors, strict=True):
                    file.insert(self._db, item, scope, vector)

        await self._locked(insert)
        return [str(item.id) for item in made]

    async def supersede(self, ident: str, item: Item, scope: Scope) -> str:
        """Keeps `item` in place of another, in one transaction. Raises as `write` does, and NotFound."""
        made = self._made(item)
        vectors = (await self._models.embed(self._embedder, [made.text])).vectors

        def put() -> None:
            with self._db:
                self._index(len(vectors[0]))
                file.insert(self._db, made, scope, vectors[0])
                file.replace_item(self._db, ident, str(made.id), scope)

        await self._locked(put)
        return str(made.id)

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        """The `k` items of the scope that matter most to the cue, best first."""
        if k < 1 or not cue.strip() or not await self._locked(self._look):
            return []
        vector = (await embed_beginnings(self._models, self._embedder, [storable(cue)]))[0]
        now_s = self._wall()
        return await self._locked(lambda: self._search.find(cue, vector, k=k, scope=scope, now_s=now_s))

    async def recall(self, occasion: Occasion, *, k: int, scope: Scope) -> list[Recollection]:
        """The `k` items that matter most to the goal."""
        return await self.query(occasion.goal, k=k, scope=scope)

    async def item(self, ident: str, scope: Scope) -> Item | None:
        """The item of that id, whatever has become of it; None for none in the scope."""
        sql = f"SELECT {file.COLUMNS} FROM items WHERE id = :ident AND {file.OF_SCOPE}"
        bound = {**file.bound(scope), "ident": ident}
        row = await self._locked(lambda: self._db.execute(sql, bound).fetchone())
        return None if row is None else file.item_of(cast(Any, row))

    async def forget(self, idents: Sequence[str], scope: Scope) -> list[str]:
        """Removes items with their versions and what was made of them; the file is written anew.

        Raises NotFound; Unavailable when it is removed, but another process reads the log.
        """
        return await self._locked(lambda: file.forget(self._db, self.path, idents, scope))

    async def items(self, scope: Scope) -> list[Item]:
        """All that is kept of the scope, oldest first."""
        sql = f"SELECT {file.COLUMNS} FROM items WHERE {file.OF_SCOPE} ORDER BY created_s, number"
        bound = file.bound(scope)
        return await self._locked(lambda: [file.item_of(cast(Any, r)) for r in self._db.execute(sql, bound)])

    async def learn(self, experience: Experience, scope: Scope) -> None:
        """Keeps an answered run as an episode."""
        if (item := episode(experience)) is not None:
            await self.write(item, scope)

    async def consolidate(self, scope: Scope) -> int:
        """Removes the tenant's expired items, and older copies of equal text and kind."""
        sql = f"""
            SELECT number FROM items WHERE {file.OF_SCOPE} AND (
              expires_s <= :now OR superseded_by IS NULL AND EXISTS (
                SELECT 1 FROM items AS newer WHERE newer.tenant = items.tenant AND newer.kind = items.kind
                AND newer.text = items.text AND newer.agent IS items.agent AND newer.superseded_by IS NULL
                AND (newer.created_s, newer.number) > (items.created_s, items.number)
                AND (newer.expires_s IS NULL OR newer.expires_s > :now)))
            """

        def remove() -> int:
            with self._db:
                rows = self._db.execute(sql, file.bound(scope, self._wall()))
                numbers = [cast(int, number) for (number,) in rows]
                file.erase(self._db, numbers)
            return len(numbers)

        return await self._locked(remove)

    async def count(self, scope: Scope) -> int:
        """Items of the scope that are recalled."""
        sql = f"SELECT COUNT(*) FROM items WHERE {file.LIVE}"
        bound = file.bound(scope, self._wall())
        return await self._locked(lambda: int(cast(Any, self._db.execute(sql, bound).fetchone())[0]))

    def check_integrity(self) -> list[str]:
        """What is wrong with the file; empty when it is sound."""
        with self._lock, file.translated(self.path):
            problems = [str(r[0]) for r in self._db.execute("PRAGMA integrity_check") if r[0] != "ok"]
            if self._indexed:
                held = "SELECT number FROM items WHERE superseded_by IS NULL"
                lost = f"{held} AND number NOT IN (SELECT number FROM vectors)"
                stray = f"SELECT number FROM vectors WHERE number NOT IN ({held})"
                problems += [f"item {n} has no vector" for (n,) in self._db.execute(lost)]
                problems += [f"vector {n} has no item" for (n,) in self._db.execute(stray)]
        return problems

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def _made(self, item: Item) -> Item:
        """The item as it is stored."""
        return replace(
            item,
            id=item.id or f"mem_{uuid.uuid4().hex[:16]}",
            text=storable(item.text),
            created_s=self._wall() if item.created_s is None else item.created_s,
        )

    async def _locked(self, work: Callable[[], R]) -> R:
        def run() -> R:
            with self._lock, file.translated(self.path):
                return work()

        return await asyncio.to_thread(run)

    def _look(self) -> bool:
        """Whether the file has vectors, of our embedder; another one may have written the first since."""
        if not self._indexed:
            made = self._db.execute("SELECT embedder FROM about").fetchone()
            if made is not None and made[0] != self._embedder:
                raise Conflict(
                    f"memory {self.path.name!r} holds vectors of {made[0]!r}, not of {self._embedder!r}",
                    hint=f"use the embedding model {made[0]!r} or another file",
                )
            self._indexed = made is not None
        return self._indexed

    def _index(self, dimensions: int) -> None:
        if self._look():
            return
        self._db.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS vectors USING vec0(number INTEGER PRIMARY KEY, "
            f"tenant TEXT PARTITION KEY, embedding float[{dimensions}] distance_metric=cosine)"
        )
        self._db.execute("INSERT INTO about VALUES (?, ?)", (self._embedder, dimensions))
        self._indexed = True
