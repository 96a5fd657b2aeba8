"""Where the settings say that the journal of agent runs lies."""

from __future__ import annotations

from pentad.agent.journal_store.base import JournalStore
from pentad.agent.journal_store.sqlite_file import SqliteFile
from pentad.application.config import Settings


def journal_store(settings: Settings) -> JournalStore:
    """The database that `journal` names, or the file in the data folder.

    Raises Incompatible: it needs a package that is not installed. InvalidRequest: it names no database.
    """
    if settings.journal is None:
        return SqliteFile(settings.journal_path)
    from pentad.agent.journal_store.postgres import PostgresStore

    return PostgresStore(settings.journal, settings.journal_path)
