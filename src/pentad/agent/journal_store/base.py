"""JournalStore: what differs between the databases that a journal can lie in.

Statements are written once, in the SQL that SQLite and PostgreSQL share, with `?` for values; a store
opens connections, begins and ends transactions, and knows which owners of runs still live.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pentad.agent.seal import Seal
from pentad.errors import Unavailable

ALL = 1 << 62
"""A LIMIT that bounds nothing."""


class JournalUnavailable(Unavailable):
    """The journal cannot be written or read now; what was asked of it did not happen."""

    passing = False
    """Whether the same may succeed later: the disk is full, or the server does not answer."""


class Rows(Protocol):
    """What a statement found."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Db(Protocol):
    """A connection; one thread uses it at a time."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Rows: ...

    def close(self) -> None: ...


class JournalStore(Protocol):
    """The database of one journal, used by one process."""

    @property
    def name(self) -> str:
        """How errors call it; no secret is in it."""
        ...

    @property
    def owner(self) -> str:
        """The name under which this process claims runs."""
        ...

    def open(self) -> tuple[Db, Seal]:
        """A connection for reading, with the tables laid out, and the journal's key.

        Raises Conflict: a later format, no key or another one, or somebody is replacing the journal.
        """
        ...

    def writer(self) -> Db:
        """A connection of its own for the thread that writes."""
        ...

    def transaction(
        self, db: Db, *, durable: bool | None = None, exclusive: bool = False
    ) -> AbstractContextManager[None]:
        """All or nothing.

        Args:
            durable: whether the commit is forced to the disk before it returns; None leaves that as it is.
            exclusive: whether no other process may be in such a transaction meanwhile.
        """
        ...

    def snapshot(self, db: Db) -> AbstractContextManager[None]:
        """Reading of one state; changes nothing."""
        ...

    def translated(self) -> AbstractContextManager[None]:
        """Turns the database's errors into JournalUnavailable."""
        ...

    @property
    def signs_of_life_s(self) -> float | None:
        """How often `sign_of_life` is wanted of a process that writes nothing; None: never."""
        ...

    def sign_of_life(self, db: Db) -> None:
        """Lets the others know that this process lives, with the writer's connection."""
        ...

    def lay_out(self, db: Db, statements: Sequence[str]) -> None:
        """Makes tables and indexes, written as for SQLite. In a transaction."""
        ...

    def recover(self, db: Db) -> None:
        """Before the first transaction after one that failed."""
        ...

    def touch(self, db: Db) -> None:
        """Writes what is there already. In a transaction."""
        ...

    def alive(self, db: Db, owner: str) -> bool:
        """Whether the process that claims runs under this name still works. In a transaction."""
        ...

    def problems(self, db: Db) -> list[str]:
        """What the database itself finds wrong with its files. Reads everything."""
        ...

    def compact(self, db: Db) -> None:
        """Writes the tables anew without what was removed. Raises Unavailable when readers prevent it."""
        ...

    def close(self) -> None:
        """Gives back what `open` took, but for the connections."""
        ...
