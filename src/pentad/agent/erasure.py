"""Removing runs so that no byte of their text stays in the journal's files."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pentad.agent import part_store, prompt_store
from pentad.agent.journal_store.base import Db, JournalStore
from pentad.agent.journal_view import JournalView
from pentad.agent.rows import JournalDamaged, no_run
from pentad.agent.state import fold
from pentad.errors import Conflict, NotFound


def remove_runs(store: JournalStore, run_ids: Sequence[str]) -> None:
    """Removes runs with their events and the prompts that no other run asked: all of them or none.

    The tables are written anew without them, so this takes time and room as the journal does. Runs that
    were forked of them stay, and so do backups and what other runs recalled of them.

    Raises:
        NotFound: no such run.
        Conflict: a living process works on one of them.
        Unavailable: they are removed, but a reader keeps the log that still has their text.
    """
    with store.translated(), contextlib.closing(store.writer()) as db:
        with store.transaction(db, exclusive=True):
            for run_id in run_ids:
                _remove(store, db, run_id)
        store.compact(db)


def with_sub_runs(journal: JournalView, run_ids: Sequence[str]) -> list[str]:
    """The runs with their sub-runs, each once, a run before its own.

    Raises NotFound; Conflict for a sub-run without the run that leads it, which still reads its answer.
    """
    found: dict[str, None] = {}

    def add(run_id: str) -> None:
        found[run_id] = None
        with contextlib.suppress(JournalDamaged, ValueError):
            for child in fold(journal.read(run_id)).children.values():
                with contextlib.suppress(NotFound):
                    journal.run(child.run_id)
                    add(child.run_id)

    for run_id in run_ids:
        add(run_id)
    for run_id in found:
        parent = journal.run(run_id).parent
        if parent is not None and parent.run_id not in found:
            with contextlib.suppress(NotFound):
                journal.run(parent.run_id)
                raise Conflict(
                    f"run {run_id!r} is a sub-run of {parent.run_id!r}", hint=f"remove {parent.run_id}"
                )
    return list(found)


def _remove(store: JournalStore, db: Db, run_id: str) -> None:
    row = db.execute("SELECT owner FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise no_run(run_id)
    if row[0] is not None and store.alive(db, row[0]):
        raise Conflict(
            f"run {run_id!r} is being worked on by process {row[0].split(':')[0]}",
            hint=f"end it first: pentad runs cancel {run_id}",
        )
    # The line first: events of a run that is listed are kept by a trigger.
    db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
    db.execute("DELETE FROM events WHERE run_id = ?", (run_id,))
    prompt_store.forget(db, run_id)
    part_store.forget(db, run_id)
