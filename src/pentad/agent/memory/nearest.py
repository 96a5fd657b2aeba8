"""Nearest: the vectors of the memory file, held ready so that a query touches no table for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import apsw
import numpy as np
import numpy.typing as npt

from pentad.agent.memory.base import Scope

MOST_HELD = 100_000
"""Vectors of a tenant that are held, 150 MB of 384 floats each. Beyond them the file's index is asked."""


@dataclass(frozen=True, slots=True)
class _Held:
    """One tenant's items that nothing superseded, a row for each."""

    numbers: npt.NDArray[np.int64]
    """Rising."""
    agents: npt.NDArray[np.object_]
    expires_s: npt.NDArray[np.float64]
    """Infinite where an item never expires."""
    units: npt.NDArray[np.float32]


class Nearest:
    """Finds the items whose vectors are nearest, by cosine; exact.

    What is held is read anew once the file has changed, by us or by another process. Cost: one product of
    a matrix and a vector per query, a quarter of a millisecond for 10,000 items of 384 floats.

    Args:
        db: the memory file, whose table `vectors` is there.
        most_held: vectors of one tenant held in memory.
    """

    def __init__(self, db: apsw.Connection, *, most_held: int = MOST_HELD) -> None:
        self._db, self._most_held = db, most_held
        self._held: dict[str, _Held | None] = {}
        self._seen: tuple[int, int] | None = None

    def find(
        self, vector: npt.NDArray[np.float32], scope: Scope, now_s: float, pool: int
    ) -> tuple[dict[int, float], Cosines]:
        """The `pool` nearest live items by number with their cosines, and what tells those of others."""
        held = self._of(scope.tenant, len(vector))
        if held is None:
            return self._asked(vector, scope, pool)
        length = float(np.linalg.norm(vector))
        unit = (vector / length if length else vector).astype(np.float32)
        cosines: npt.NDArray[np.float32] = held.units @ unit
        apart = held.expires_s <= now_s
        if scope.agent is not None:
            apart |= held.agents != scope.agent
        ranked = np.where(apart, -2.0, cosines)
        most = min(pool, len(ranked) - int(apart.sum()))
        best = np.argpartition(-ranked, most - 1)[:most] if most > 0 else np.empty(0, np.int64)
        return (
            {int(held.numbers[i]): float(cosines[i]) for i in best},
            Cosines(self._db, vector, held.numbers, cosines),
        )

    def _asked(
        self, vector: npt.NDArray[np.float32], scope: Scope, pool: int
    ) -> tuple[dict[int, float], Cosines]:
        rows = self._db.execute(
            "SELECT number, distance FROM vectors WHERE embedding MATCH ? AND k = ? AND tenant = ?",
            (vector.tobytes(), pool, scope.tenant),
        )
        return {n: 1.0 - distance for n, distance in cast(Any, rows)}, Cosines(self._db, vector)

    def _of(self, tenant: str, dimensions: int) -> _Held | None:
        """The tenant's vectors; None where they are too many to hold."""
        version = cast(Any, self._db.execute("PRAGMA data_version").fetchone())[0]
        # The first changes with commits of other connections, the second with our own.
        state = (int(version), self._db.total_changes())
        if state != self._seen:
            self._held.clear()
            self._seen = state
        if tenant not in self._held:
            self._held[tenant] = self._read(tenant, dimensions)
        return self._held[tenant]

    def _read(self, tenant: str, dimensions: int) -> _Held | None:
        count = cast(
            Any, self._db.execute("SELECT COUNT(*) FROM items WHERE tenant = ?", (tenant,)).fetchone()
        )
        if count[0] > self._most_held:
            return None
        about = {
            number: (agent, float("inf") if expires_s is None else expires_s)
            for number, agent, expires_s in cast(
                Any,
                self._db.execute("SELECT number, agent, expires_s FROM items WHERE tenant = ?", (tenant,)),
            )
        }
        sql = "SELECT number, embedding FROM vectors WHERE tenant = ?"
        rows = sorted((n, data) for n, data in cast(Any, self._db.execute(sql, (tenant,))) if n in about)
        units = np.frombuffer(b"".join(data for _, data in rows), np.float32).reshape(len(rows), dimensions)
        lengths = np.linalg.norm(units, axis=1, keepdims=True)
        return _Held(
            numbers=np.array([n for n, _ in rows], np.int64),
            agents=np.array([about[n][0] for n, _ in rows], np.object_),
            expires_s=np.array([about[n][1] for n, _ in rows], np.float64),
            units=np.asarray(units / np.where(lengths > 0, lengths, 1.0), np.float32),
        )


class Cosines:
    """How near any item is to one cue."""

    def __init__(
        self,
        db: apsw.Connection,
        vector: npt.NDArray[np.float32],
        numbers: npt.NDArray[np.int64] | None = None,
        cosines: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self._db, self._vector = db, vector
        self._numbers, self._cosines = numbers, cosines

    def of(self, number: int) -> float:
        """The cosine of one item's vector and the cue's; 0 for an item without."""
        if self._numbers is not None and self._cosines is not None:
            at = int(np.searchsorted(self._numbers, number))
            there = at < len(self._numbers) and self._numbers[at] == number
            return float(self._cosines[at]) if there else 0.0
        sql = "SELECT vec_distance_cosine(embedding, ?) FROM vectors WHERE number = ?"
        row = cast(Any, self._db.execute(sql, (self._vector.tobytes(), number)).fetchone())
        return 1.0 - row[0] if row else 0.0
