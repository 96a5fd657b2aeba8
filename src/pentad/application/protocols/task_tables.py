"""TaskTables: what a protocol says of a run that its journal does not: its conversation, whom to notify.

All else of a task (in A2A) or a prompt (of an editor) is the fold of its run's journal, so it
outlives the process as its run does.
"""

from __future__ import annotations

import json
import pathlib
import threading
from dataclasses import dataclass

from pentad.agent.sqlite import connect, prepare, transaction, translated

MAX_CONFIGS = 16
"""Push notification configurations that one task may have."""
_SCHEMA = (
    """CREATE TABLE tasks (
      run_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, context_id TEXT NOT NULL, message_id TEXT NOT NULL,
      UNIQUE (tenant, message_id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX tasks_by_context ON tasks (tenant, context_id)",
    """CREATE TABLE pushes (
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
    """The rows, in a file beside the journal. Used by any thread, one at a time.

    Args:
        path: the SQLite file; made if it is not there.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db = connect(path)
        with translated(path):
            prepare(self._db, schema=_SCHEMA, version=1, what="tasks")

    def close(self) -> None:
        """Lets go of the file."""
        with self._lock:
            self._db.close()

    def add(self, known: Known) -> None:
        """Keeps a task; one of the same tenant and message stays as it was."""
        cells = (known.run_id, known.tenant, known.context_id, known.message_id)
        self._write("INSERT OR IGNORE INTO tasks VALUES (?, ?, ?, ?)", cells)

    def task(self, run_id: str) -> Known | None:
        """What is kept of a task; None for a run that was begun otherwise."""
        found = self._read(
            "SELECT run_id, tenant, context_id, message_id FROM tasks WHERE run_id = ?", run_id
        )
        return _known(found[0]) if found else None

    def by_message(self, tenant: str, message_id: str) -> Known | None:
        """The task that a message of this id began."""
        query = "SELECT run_id, tenant, context_id, message_id FROM tasks WHERE tenant = ? AND message_id = ?"
        found = self._read(query, tenant, message_id)
        return _known(found[0]) if found else None

    def of_context(self, tenant: str, context_id: str) -> list[str]:
        """The runs of a context."""
        query = "SELECT run_id FROM tasks WHERE tenant = ? AND context_id = ?"
        return [run_id for (run_id,) in self._read(query, tenant, context_id)]

    def put_push(self, run_id: str, id_: str, config: dict[str, object]) -> None:
        """Keeps a push notification configuration in place of one of its id."""
        self._write("INSERT OR REPLACE INTO pushes VALUES (?, ?, ?)", (run_id, id_, json.dumps(config)))

    def pushes(self, run_id: str) -> dict[str, dict[str, object]]:
        """A task's configurations by id."""
        query = "SELECT id, config FROM pushes WHERE run_id = ? ORDER BY id"
        return {id_: json.loads(config) for id_, config in self._read(query, run_id)}

    def drop_push(self, run_id: str, id_: str) -> None:
        """Removes a configuration, if it is there."""
        self._write("DELETE FROM pushes WHERE run_id = ? AND id = ?", (run_id, id_))

    def notified(self) -> list[Known]:
        """The tasks that somebody wants to be told of."""
        query = "SELECT DISTINCT run_id, tenant, context_id, message_id FROM tasks JOIN pushes USING (run_id)"
        return [_known(row) for row in self._read(query)]

    def _write(self, statement: str, cells: tuple[str, ...]) -> None:
        with self._lock, translated(self._path), transaction(self._db):
            self._db.execute(statement, cells)

    def _read(self, query: str, *cells: str) -> list[tuple[str, ...]]:
        with self._lock, translated(self._path):
            return self._db.execute(query, cells).fetchall()


def _known(row: tuple[str, ...]) -> Known:
    run_id, tenant, context_id, message_id = row
    return Known(run_id=run_id, tenant=tenant, context_id=context_id, message_id=message_id)
