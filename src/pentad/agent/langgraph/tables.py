"""CheckpointTables: what a LangGraph checkpointer keeps, as sealed rows beside the journal's runs.

Every row carries a digest under the journal's key, which is checked before anything of it is decoded,
so that whoever can only write the database cannot have bytes of theirs deserialised.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.agent import journal_format, usage_lock
from pentad.agent.rows import JournalDamaged
from pentad.agent.sqlite import connect, transaction, translated

Typed = tuple[str, bytes]
"""A serialised value: the serializer's name for its type, and its bytes."""
Place = tuple[str, str, str]
"""A checkpoint: its thread, namespace and id."""

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS graph_checkpoints (
      thread TEXT NOT NULL, namespace TEXT NOT NULL, id TEXT NOT NULL, parent TEXT, run_id TEXT,
      kind TEXT NOT NULL, data BLOB NOT NULL, metadata_kind TEXT NOT NULL, metadata BLOB NOT NULL,
      digest BLOB NOT NULL, PRIMARY KEY (thread, namespace, id)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS graph_values (
      thread TEXT NOT NULL, namespace TEXT NOT NULL, channel TEXT NOT NULL, version TEXT NOT NULL,
      kind TEXT NOT NULL, data BLOB NOT NULL, digest BLOB NOT NULL,
      PRIMARY KEY (thread, namespace, channel, version)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS graph_writes (
      thread TEXT NOT NULL, namespace TEXT NOT NULL, id TEXT NOT NULL, task TEXT NOT NULL,
      number INTEGER NOT NULL, path TEXT NOT NULL, channel TEXT NOT NULL,
      kind TEXT NOT NULL, data BLOB NOT NULL, digest BLOB NOT NULL,
      PRIMARY KEY (thread, namespace, id, task, number)
    ) STRICT, WITHOUT ROWID""",
)
_COLUMNS = {
    "graph_checkpoints": "thread, namespace, id, parent, run_id, kind, data, metadata_kind, metadata",
    "graph_values": "thread, namespace, channel, version, kind, data",
    "graph_writes": "thread, namespace, id, task, number, path, channel, kind, data",
}
_Cell = str | bytes | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """One checkpoint as it lies in the file, its values apart."""

    place: Place
    parent: str | None
    run_id: str | None
    state: Typed
    metadata: Typed


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWrite:
    """What one task of a step wrote to one channel."""

    task: str
    number: int
    path: str
    channel: str
    value: Typed


class CheckpointTables:
    """The rows. Used by any thread, one at a time; several processes may share the file.

    Args:
        path: the journal's file; it, its key and its tables are made where they are missing.
    """

    def __init__(self, path: pathlib.Path | str) -> None:
        self._path = path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        with contextlib.ExitStack() as undo:
            self._in_use = usage_lock.share(path)
            undo.callback(os.close, self._in_use)
            self._db = connect(path)
            undo.callback(self._db.close)
            with translated(path):
                self._seal = journal_format.prepare(self._db, path)
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA secure_delete = ON")
                with transaction(self._db):
                    for statement in _SCHEMA:
                        self._db.execute(statement)
            undo.pop_all()

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._db.close()
            if self._in_use >= 0:
                os.close(self._in_use)
                self._in_use = -1

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """All that the body puts and removes, or nothing; on the disk when it ends."""
        with self._lock, translated(self._path), transaction(self._db):
            yield

    def put(self, checkpoint: StoredCheckpoint) -> None:
        """Keeps a checkpoint in place of one of its id. Within `writing`."""
        cells = (*checkpoint.place, checkpoint.parent, checkpoint.run_id, *checkpoint.state)
        self._put("graph_checkpoints", (*cells, *checkpoint.metadata))

    def put_value(self, place: Place, channel: str, version: object, value: Typed) -> None:
        """Keeps a channel's value at a version. Within `writing`."""
        self._put("graph_values", (*place[:2], channel, json.dumps(version), *value))

    def put_write(self, place: Place, write: StoredWrite, *, replace: bool) -> None:
        """Keeps what a task wrote; without `replace` the first of a number stays. Within `writing`."""
        cells = (*place, write.task, write.number, write.path, write.channel, *write.value)
        self._put("graph_writes", cells, replace=replace)

    def find(self, thread: str | None, namespace: str | None, *, before: str | None) -> list[Place]:
        """The checkpoints of a thread (None: of all), the latest first.

        Args:
            namespace: only of this one. before: only those with a smaller id.
        """
        asked = [("thread = ?", thread), ("namespace = ?", namespace), ("id < ?", before)]
        given = [(clause, value) for clause, value in asked if value is not None]
        where = " AND ".join(clause for clause, _ in given) or "1"
        # The clauses are the literals above.
        query = f"SELECT thread, namespace, id FROM graph_checkpoints WHERE {where} ORDER BY id DESC"
        with self._lock, translated(self._path):
            return list(self._db.execute(query, [value for _, value in given]))

    def get(self, place: Place) -> StoredCheckpoint | None:
        """One checkpoint. Raises JournalDamaged for one that was changed."""
        for cells in self._sealed("graph_checkpoints", "thread = ? AND namespace = ? AND id = ?", place):
            thread, namespace, id_, parent, run_id, kind, data, metadata_kind, metadata = cells
            return StoredCheckpoint(
                place=(thread, namespace, id_),
                parent=parent,
                run_id=run_id,
                state=(kind, data),
                metadata=(metadata_kind, metadata),
            )
        return None

    def value(self, place: Place, channel: str, version: object) -> Typed | None:
        """A channel's value at a version. Raises JournalDamaged."""
        where = "thread = ? AND namespace = ? AND channel = ? AND version = ?"
        asked = (*place[:2], channel, json.dumps(version))
        for cells in self._sealed("graph_values", where, asked):
            return cells[4], cells[5]
        return None

    def writes(self, place: Place) -> list[StoredWrite]:
        """What the tasks of a checkpoint wrote, in the order of its use. Raises JournalDamaged."""
        where = "thread = ? AND namespace = ? AND id = ? ORDER BY path, task, number"
        return [
            StoredWrite(task=cells[3], number=cells[4], path=cells[5], channel=cells[6], value=cells[7:9])
            for cells in self._sealed("graph_writes", where, place)
        ]

    def copy(self, source: str, target: str) -> None:
        """Copies a whole thread; what the target has stays beside it. Within `writing`."""
        for table in _COLUMNS:
            for cells in self._sealed(table, "thread = ?", (source,)):
                self._put(table, (target, *cells[1:]))

    def remove_thread(self, thread: str) -> None:
        """Removes all of a thread. Within `writing`."""
        for table in _COLUMNS:
            self._db.execute(f"DELETE FROM {table} WHERE thread = ?", (thread,))

    def remove(self, places: Sequence[Place]) -> None:
        """Removes checkpoints with what their tasks wrote. Within `writing`."""
        for table in ("graph_checkpoints", "graph_writes"):
            self._db.executemany(
                f"DELETE FROM {table} WHERE thread = ? AND namespace = ? AND id = ?", list(places)
            )

    def of_runs(self, run_ids: Sequence[str]) -> list[Place]:
        """The checkpoints that these runs of graphs made."""
        query = "SELECT thread, namespace, id FROM graph_checkpoints WHERE run_id = ?"
        with self._lock, translated(self._path):
            return [place for run_id in run_ids for place in self._db.execute(query, (run_id,))]

    def _put(self, table: str, cells: tuple[_Cell, ...], *, replace: bool = True) -> None:
        verb = "INSERT OR REPLACE" if replace else "INSERT OR IGNORE"
        marks = ", ".join("?" * (len(cells) + 1))
        digest = self._seal.kept(table, *map(_bytes, cells))
        self._db.execute(
            f"{verb} INTO {table} ({_COLUMNS[table]}, digest) VALUES ({marks})", (*cells, digest)
        )

    def _sealed(self, table: str, where: str, asked: Sequence[_Cell]) -> list[tuple[Any, ...]]:
        query = f"SELECT {_COLUMNS[table]}, digest FROM {table} WHERE {where}"
        with self._lock, translated(self._path):
            rows = self._db.execute(query, asked).fetchall()
        for *cells, digest in rows:
            if not hmac.compare_digest(digest, self._seal.kept(table, *map(_bytes, cells))):
                raise JournalDamaged(
                    f"a row of {table} of thread {cells[0]!r:.100} was changed outside of Pentad",
                    hint="put the journal back from a backup, or delete the thread",
                )
        return [tuple(row[:-1]) for row in rows]


def _bytes(cell: _Cell) -> bytes:
    """A cell such that two different ones never give the same."""
    match cell:
        case None:
            return b"n"
        case bytes():
            return b"b" + cell
        case int():
            return b"i%d" % cell
        case _:
            return b"t" + cell.encode("utf-8", "surrogatepass")
