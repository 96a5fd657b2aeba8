"""TaskTables: what a protocol says of a run that its journal does not: its conversation, whom to notify.

All else of a task (in A2A) or a prompt (of an editor) is the fold of its run's journal, so it
outlives the process as its run does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pentad.agent.journal_store.base import JournalStore

MAX_CONFIGS = 16
"""Push notification configurations that one task may have."""
_CELLS = "run_id, tenant, context_id, message_id"
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS protocol_tasks (
      run_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, context_id TEXT NOT NULL, message_id TEXT NOT NULL,
      UNIQUE (tenant, message_id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS protocol_tasks_by_context ON protocol_tasks (tenant, context_id)",
    """CREATE TABLE IF NOT EXISTS protocol_pushes (
      run_id TEXT NOT NULL, id TEXT NOT NULL, config TEXT NOT NULL, PRIMARY KEY (run_id, id)
    ) STRICT, WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is kept of one task."""

    run_id: str
    tenant: str
    context_id: str
    message_id: str


class TaskTables:
    """The rows, in the journal's database. Used by any thread, one at a time.

    Args:
        store: the database.
    """

    def __init__(self, store: JournalStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        with store.translated():
            self._db = store.writer()
            with store.transaction(self._db, durable=True, exclusive=True):
                store.lay_out(self._db, _SCHEMA)

    def close(self) -> None:
        """Lets go of the connection."""
        with self._lock:
            self._db.close()

    def add(self, known: Known) -> None:
        """Keeps a task; one of the same tenant and message stays as it was."""
        cells = (known.run_id, known.tenant, known.context_id, known.message_id)
        self._write("INSERT INTO protocol_tasks VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", cells)

    def task(self, run_id: str) -> Known | None:
        """What is kept of a task; None for a run that was begun otherwise."""
        found = self._read(f"SELECT {_CELLS} FROM protocol_tasks WHERE run_id = ?", run_id)
        return _known(found[0]) if found else None

    def by_message(self, tenant: str, message_id: str) -> Known | None:
        """The task that a message of this id began."""
        query = f"SELECT {_CELLS} FROM protocol_tasks WHERE tenant = ? AND message_id = ?"
        found = self._read(query, tenant, message_id)
        return _known(found[0]) if found else None

    def of_context(self, tenant: str, context_id: str) -> list[str]:
        """The runs of a context."""
        query = "SELECT run_id FROM protocol_tasks WHERE tenant = ? AND context_id = ?"
        return [run_id for (run_id,) in self._read(query, tenant, context_id)]

    def put_push(self, run_id: str, id_: str, config: dict[str, object]) -> None:
        """Keeps a push notification configuration in place of one of its id."""
        statement = (
            "INSERT INTO protocol_pushes VALUES (?, ?, ?) "
            "ON CONFLICT (run_id, id) DO UPDATE SET config = excluded.config"
        )
        self._write(statement, (run_id, id_, json.dumps(config)))

    def pushes(self, run_id: str) -> dict[str, dict[str, object]]:
        """A task's configurations by id."""
        query = "SELECT id, config FROM protocol_pushes WHERE run_id = ? ORDER BY id"
        return {id_: json.loads(config) for id_, config in self._read(query, run_id)}

    def drop_push(self, run_id: str, id_: str) -> None:
        """Removes a configuration, if it is there."""
        self._write("DELETE FROM protocol_pushes WHERE run_id = ? AND id = ?", (run_id, id_))

    def notified(self) -> list[Known]:
        """The tasks that somebody wants to be told of."""
        query = f"SELECT DISTINCT {_CELLS} FROM protocol_tasks JOIN protocol_pushes USING (run_id)"
        return [_known(row) for row in self._read(query)]

    def _write(self, statement: str, cells: tuple[str, ...]) -> None:
        with self._lock, self._store.translated(), self._store.transaction(self._db, durable=True):
            self._db.execute(statement, cells)

    def _read(self, query: str, *cells: str) -> list[Any]:
        with self._lock, self._store.translated():
            return self._db.execute(query, cells).fetchall()


def _known(row: Sequence[str]) -> Known:
    run_id, tenant, context_id, message_id = row
    return Known(run_id=run_id, tenant=tenant, context_id=context_id, message_id=message_id)
