"""Search: the items of the memory file that matter to a cue, by vectors, words, age and importance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import apsw
import numpy as np

from pentad.agent.memory.base import Item, Recollection, Scope
from pentad.agent.memory.file import COLUMNS, LIVE, bound, item_of
from pentad.agent.memory.nearest import Nearest
from pentad.agent.memory.scoring import Weights
from pentad.agent.sqlite import storable
from pentad.model.terms import terms, unspaced_share

_POOL = 64
"""Candidates that each index brings, at least."""
_MOST_WORDS = 64
_COMMON_FRACTION = 1 / 16
"""Words that more of the items have are left out of a search in which rarer ones are."""
_COMMON_LEAST = 64
"""Items that must have a word before it counts as common."""


class Search:
    """Finds items in one open file.

    The nearest vectors (cosine) and the best keyword hits (FTS5, BM25) of the scope are scored together;
    see `Weights`. Cost: below 5 ms for 10,000 items, besides the embedding.
    """

    def __init__(self, db: apsw.Connection, weights: Weights) -> None:
        self._db, self._weights = db, weights
        self._nearest = Nearest(db)

    def find(
        self, cue: str, vector: Sequence[float], *, k: int, scope: Scope, now_s: float
    ) -> list[Recollection]:
        """The `k` items of the scope that matter most to the cue, best first."""
        pool = max(_POOL, 4 * k)
        weights = self._weights.for_cue(unspaced_share(cue))
        near, cosines = self._nearest.find(np.asarray(vector, np.float32), scope, now_s, pool)
        keywords = self._keywords(cue, bound(scope, now_s), pool)
        marks = ",".join(map(str, map(int, near.keys() | keywords.keys())))
        # Not indexed: SQLite would rather walk through all items of the tenant than look up these few.
        sql = f"SELECT number, id, created_s, importance FROM items NOT INDEXED WHERE number IN ({marks})"
        scored = []
        for number, ident, created_s, importance in cast(
            Any, self._db.execute(f"{sql} AND {LIVE}", bound(scope, now_s))
        ):
            similarity = min(1.0, max(0.0, near[number] if number in near else cosines.of(number)))
            keyword, recency = keywords.get(number, 0.0), weights.fresh(now_s - created_s)
            score = weights.score(
                similarity=similarity, keyword=keyword, recency=recency, importance=importance
            )
            scored.append((-score, ident, number, similarity, keyword, recency))
        return [
            Recollection(
                item=self._item(number), score=-minus, similarity=similarity, keyword=keyword, recency=recency
            )
            for minus, _, number, similarity, keyword, recency in sorted(scored)[:k]
        ]

    def _item(self, number: int) -> Item:
        row = self._db.execute(f"SELECT {COLUMNS} FROM items WHERE number = ?", (number,)).fetchone()
        return item_of(cast(Any, row))

    def _keywords(self, cue: str, values: dict[str, Any], pool: int) -> dict[int, float]:
        """Keyword score by item number: BM25 as a share of the best hit's."""
        words = sorted(set(re.findall(r"\w+", terms(storable(cue)).lower())))[:_MOST_WORDS]
        match = " OR ".join(self._telling(words))
        if not match:
            return {}
        rows = self._db.execute(
            "SELECT items.number, -bm25(words) FROM words JOIN items ON items.number = words.rowid "
            f"WHERE words MATCH :match AND {LIVE} ORDER BY bm25(words) LIMIT :pool",
            {**values, "match": match, "pool": pool},
        )
        hits = [(int(number), float(score)) for number, score in cast(Any, rows)]
        best = max((score for _, score in hits), default=0.0)
        return {number: max(0.0, score) / best if best > 0 else 0.0 for number, score in hits}

    def _telling(self, words: Sequence[str]) -> list[str]:
        """The words, quoted, without the common ones; all where there are no others.

        Common words hardly move BM25, and all the items that have them would have to be scored.
        """
        total = int(cast(Any, self._db.execute("SELECT COUNT(*) FROM items").fetchone())[0])
        most = max(_COMMON_LEAST, int(total * _COMMON_FRACTION))
        quoted = [f'"{word}"' for word in words]
        return [word for word in quoted if self._having(word, most + 1) <= most] or quoted

    def _having(self, word: str, most: int) -> int:
        """How many items have the word; counts no further than `most`."""
        sql = "SELECT COUNT(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
        return int(cast(Any, self._db.execute(sql, (word, most)).fetchone())[0])
