"""LongTerm: memories that outlive the run, in one SQLite file with vectors and full text."""

from __future__ import annotations

import asyncio
import pathlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

from pentad.agent.embedding import embed_beginnings
from pentad.agent.memory.base import Item, Kind, MemoryServices, Recollection, Scope
from pentad.agent.memory.file import erase, open_file, packed, translated
from pentad.agent.memory.scoring import Weights
from pentad.agent.ports import ModelPort
from pentad.agent.sqlite import storable
from pentad.errors import Conflict
from pentad.model.terms import terms, unspaced_share
from pentad.types import Clock

R = TypeVar("R")
_COLUMNS = "items.number, id, agent, kind, items.text, source, importance, created_s, expires_s"
_LIVE = "tenant = :tenant AND (:agent IS NULL OR agent = :agent) AND (expires_s IS NULL OR expires_s > :now)"
_POOL = 24
"""Candidates that each index brings for every item asked for, at least."""


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
    """Keeps typed items per tenant and recalls those that matter to a cue.

    The nearest vectors (sqlite-vec, cosine) and the best keyword hits (FTS5, BM25) of the tenant
    are scored together; see `Weights`. About 5 ms for a thousand items besides the embedding.

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
        self._weights = weights or Weights()
        self._lock = threading.Lock()
        self._indexed = False
        with translated(self.path):
            self._db = open_file(self.path)
            self._look()

    async def write(self, item: Item, scope: Scope) -> str:
        """Keeps an item. Raises ContextLengthExceeded when it is too long to embed."""
        return (await self.write_all([item], scope))[0]

    async def write_all(self, items: Sequence[Item], scope: Scope) -> list[str]:
        """Keeps several items in one transaction; their vectors are computed together."""
        texts = [storable(item.text) for item in items]
        vectors = (await self._models.embed(self._embedder, texts)).vectors
        ids = [item.id or f"mem_{uuid.uuid4().hex[:16]}" for item in items]

        def insert() -> None:
            with self._db:
                self._index(len(vectors[0]))
                for item, ident, text, vector in zip(items, ids, texts, vectors, strict=True):
                    self._insert(item, ident, text, vector, scope)

        await self._locked(insert)
        return ids

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        """The `k` items of the scope that matter most to the cue, best first."""
        if k < 1 or not cue.strip() or not await self._locked(self._look):
            return []
        vector = (await embed_beginnings(self._models, self._embedder, [storable(cue)]))[0]
        now_s = self._wall()
        return await self._locked(lambda: self._query(cue, vector, k, scope, now_s))

    async def consolidate(self, scope: Scope) -> int:
        """Removes the tenant's expired items, and older copies of equal text and kind."""
        sql = """
            SELECT number FROM items WHERE tenant = :tenant AND (:agent IS NULL OR agent = :agent) AND (
              expires_s <= :now OR EXISTS (
                SELECT 1 FROM items AS newer WHERE newer.tenant = items.tenant AND newer.kind = items.kind
                AND newer.text = items.text AND newer.agent IS items.agent
                AND (newer.created_s, newer.number) > (items.created_s, items.number)
                AND (newer.expires_s IS NULL OR newer.expires_s > :now)))
            """

        def remove() -> int:
            with self._db:
                numbers = [n for (n,) in self._db.execute(sql, self._bound(scope, self._wall()))]
                erase(self._db, numbers)
            return len(numbers)

        return await self._locked(remove)

    async def forget(self, ident: str, scope: Scope) -> bool:
        """Removes one item; whether there was one."""

        def remove() -> bool:
            sql = "SELECT number FROM items WHERE tenant = ? AND id = ?"
            with self._db:
                numbers = [n for (n,) in self._db.execute(sql, (scope.tenant, ident))]
                erase(self._db, numbers)
            return bool(numbers)

        return await self._locked(remove)

    async def count(self, scope: Scope) -> int:
        """Items of the scope that have not expired."""
        sql = f"SELECT COUNT(*) FROM items WHERE {_LIVE}"
        bound = self._bound(scope, self._wall())
        return await self._locked(lambda: int(cast(Any, self._db.execute(sql, bound).fetchone())[0]))

    def check_integrity(self) -> list[str]:
        """What is wrong with the file; empty when it is sound."""
        with self._lock, translated(self.path):
            problems = [str(r[0]) for r in self._db.execute("PRAGMA integrity_check") if r[0] != "ok"]
            if self._indexed:
                lost = "SELECT number FROM items WHERE number NOT IN (SELECT number FROM vectors)"
                stray = "SELECT number FROM vectors WHERE number NOT IN (SELECT number FROM items)"
                problems += [f"item {n} has no vector" for (n,) in self._db.execute(lost)]
                problems += [f"vector {n} has no item" for (n,) in self._db.execute(stray)]
        return problems

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    async def _locked(self, work: Callable[[], R]) -> R:
        def run() -> R:
            with self._lock, translated(self.path):
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

    def _insert(self, item: Item, ident: str, text: str, vector: Sequence[float], scope: Scope) -> None:
        created_s = self._wall() if item.created_s is None else item.created_s
        row = (ident, scope.tenant, scope.agent, item.kind, text, item.source, item.importance)
        self._db.execute(
            "INSERT OR IGNORE INTO items (id, tenant, agent, kind, text, source, importance, created_s, "
            "expires_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, created_s, item.expires_s),
        )
        if not self._db.changes():
            return
        number = self._db.last_insert_rowid()
        self._db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, terms(text)))
        self._db.execute(
            "INSERT INTO vectors (number, tenant, embedding) VALUES (?, ?, ?)",
            (number, scope.tenant, packed(vector)),
        )

    def _query(
        self, cue: str, vector: Sequence[float], k: int, scope: Scope, now_s: float
    ) -> list[Recollection]:
        bound, pool = self._bound(scope, now_s), max(_POOL, 4 * k)
        keywords = self._keywords(cue, bound, pool)
        weights = self._weights.for_cue(unspaced_share(cue))
        nearest = self._db.execute(
            "SELECT number FROM vectors WHERE embedding MATCH ? AND k = ? AND tenant = ?",
            (packed(vector), pool, scope.tenant),
        )
        numbers = {n for (n,) in nearest} | set(keywords)
        marks = ",".join(map(str, map(int, numbers)))
        rows = self._db.execute(
            f"SELECT {_COLUMNS}, vec_distance_cosine(embedding, :vector) FROM items "
            f"JOIN vectors ON vectors.number = items.number WHERE items.number IN ({marks}) "
            f"AND {_LIVE.replace('tenant', 'items.tenant', 1)}",
            {**bound, "vector": packed(vector)},
        )
        found = [
            self._recollection(row, keywords.get(cast(int, row[0]), 0.0), now_s, weights) for row in rows
        ]
        return sorted(found, key=lambda r: (-r.score, str(r.item.id)))[:k]

    def _keywords(self, cue: str, bound: dict[str, Any], pool: int) -> dict[int, float]:
        """Keyword score by item number: BM25 as a share of the best hit's."""
        words = sorted(set(re.findall(r"\w+", terms(storable(cue)).lower())))[:64]
        if not words:
            return {}
        match = " OR ".join(f'"{word}"' for word in words)
        rows = self._db.execute(
            "SELECT items.number, -bm25(words) FROM words JOIN items ON items.number = words.rowid "
            f"WHERE words MATCH :match AND {_LIVE} ORDER BY bm25(words) LIMIT :pool",
            {**bound, "match": match, "pool": pool},
        )
        hits = [(int(number), float(score)) for number, score in cast(Any, rows)]
        best = max((score for _, score in hits), default=0.0)
        return {number: max(0.0, score) / best if best > 0 else 0.0 for number, score in hits}

    def _recollection(
        self, row: Sequence[Any], keyword: float, now_s: float, weights: Weights
    ) -> Recollection:
        _, ident, _, kind, text, source, importance, created_s, expires_s, distance = row
        similarity = max(0.0, 1.0 - float(distance))
        recency = weights.fresh(now_s - created_s)
        item = Item(
            id=ident,
            text=text,
            kind=cast(Kind, kind),
            source=source,
            importance=importance,
            created_s=created_s,
            expires_s=expires_s,
        )
        score = weights.score(similarity=similarity, keyword=keyword, recency=recency, importance=importance)
        return Recollection(item=item, score=score, similarity=similarity, keyword=keyword, recency=recency)

    @staticmethod
    def _bound(scope: Scope, now_s: float) -> dict[str, Any]:
        return {"tenant": scope.tenant, "agent": scope.agent, "now": now_s}
