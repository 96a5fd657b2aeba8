"""PostgresStore: a journal in a PostgreSQL database, which gateways on several machines share.

The rows, their seals and what is promised are those of the file. What differs:

- An owner lives as long as its writer's session: it holds an advisory lock, which the server gives back
  when it sees that the process died (some instants after its death), that its machine is lost, or when
  the server itself is started anew. Then a living owner takes it again within `signs_of_life_s`.
- A connection that was lost is made anew by the next transaction; whether a commit that was under way
  did happen is found out by the journal (`Journal._commit`).
- The key cannot lie beside the database. Every machine has its own copy, and one that is not the
  journal's is refused.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import pathlib
import re
import socket
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from pentad.agent import journal_format
from pentad.agent.journal_store.base import Db, JournalUnavailable, Rows
from pentad.agent.seal import Seal, load
from pentad.errors import Conflict, Incompatible, InvalidRequest

if TYPE_CHECKING:
    import psycopg

_EXCLUSIVE = 0x70656E74616400
"""The advisory lock of transactions that exclude each other."""
_PATIENT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A server that is gone is noticed within seconds."""
_WATCHFUL = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; "
    "SET tcp_user_timeout = 10000"
)
"""And so is, by the server, a machine that is gone: its locks are free then, not after hours."""
_TYPES = {"BLOB": "BYTEA", "REAL": "DOUBLE PRECISION", "INTEGER": "BIGINT"}
_FORMAT = "CREATE TABLE journal_format (version BIGINT NOT NULL, key_check BYTEA NOT NULL)"
_FINAL = (
    """CREATE FUNCTION events_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF TG_OP = 'DELETE' AND NOT EXISTS (SELECT 1 FROM runs WHERE id = OLD.run_id) THEN RETURN OLD; END IF;
      RAISE EXCEPTION 'append-only';
    END $$""",
    "CREATE TRIGGER events_are_final BEFORE DELETE OR UPDATE ON events "
    "FOR EACH ROW EXECUTE FUNCTION events_are_final()",
)
_TABLES = ("runs", "events", "prompt_texts", "prompt_bases", "prompt_uses", "part_data", "part_uses")


class PostgresStore:
    """See JournalStore.

    Args:
        url: postgresql://user@host/database, or any connection string of libpq; its password may come
            from PGPASSWORD or a password file.
        key_at: the journal's key is the file of this name with `.key`; made with an empty database.

    Raises:
        Incompatible: psycopg is not installed.
        InvalidRequest: `url` is no connection string.
    """

    def __init__(self, url: str, key_at: pathlib.Path) -> None:
        self._url, self._key_at = url, key_at
        self.signs_of_life_s: float | None = 1.0
        self._psycopg = _psycopg()
        from psycopg.conninfo import conninfo_to_dict

        try:
            parts = conninfo_to_dict(url)
        except self._psycopg.Error as error:
            raise InvalidRequest(
                f"journal is no connection string of PostgreSQL: {error}",
                hint="write postgresql://USER@HOST/DATABASE; the password may come from PGPASSWORD",
                param="journal",
            ) from None
        self.name = f"PostgreSQL {parts.get('host', 'local')}/{parts.get('dbname', '')}"
        self.owner = f"{os.getpid()}@{socket.gethostname()}:{uuid.uuid4().hex[:8]}"

    def open(self) -> tuple[Db, Seal]:
        with self.translated():
            db = _Session(self, owner=None)
        try:
            with self.translated(), self.transaction(db, exclusive=True):
                seal = self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db, seal

    def _prepare(self, db: Db) -> Seal:
        fresh = db.execute("SELECT to_regclass('journal_format')").fetchone()[0] is None
        seal = load(self._key_at, make=fresh)
        if fresh:
            self.lay_out(db, journal_format.TABLES)
            for statement in (_FORMAT, *_FINAL):
                db.execute(statement)
            mark = (journal_format.VERSION, seal.last("", 0, b""))
            db.execute("INSERT INTO journal_format (version, key_check) VALUES (?, ?)", mark)
        version, check = db.execute("SELECT version, key_check FROM journal_format").fetchone()
        if version != journal_format.VERSION:
            raise Conflict(
                f"the journal in {self.name} has format {version}, "
                f"this version writes {journal_format.VERSION}",
                hint="use the pentad that wrote it, or another database",
            )
        if not hmac.compare_digest(check, seal.last("", 0, b"")):
            raise Conflict(
                f"the key {self._key_at.name}.key is not that of the journal in {self.name}",
                hint="copy the key from the machine that made the journal",
            )
        return seal

    def writer(self) -> Db:
        with self.translated():
            return _Session(self, owner=self.owner)

    @contextlib.contextmanager
    def transaction(self, db: Db, *, durable: bool | None = None, exclusive: bool = False) -> Iterator[None]:
        del durable
        cast(_Session, db).revive()
        db.execute("BEGIN")
        try:
            # Whatever is asked: a commit that a crash of the server takes back would leave a gap behind it.
            db.execute("SET LOCAL synchronous_commit = on")
            if exclusive:
                db.execute("SELECT pg_advisory_xact_lock(?)", (_EXCLUSIVE,))
            yield
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(self._psycopg.Error):
                db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def snapshot(self, db: Db) -> Iterator[None]:
        cast(_Session, db).revive()
        db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            with contextlib.suppress(self._psycopg.Error):
                db.execute("ROLLBACK")

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            unavailable = JournalUnavailable(
                f"the journal in {self.name} cannot be used: {told[0][:300]}",
                hint="see that the server runs, lets this user in and has room on its disk",
            )
            unavailable.passing = isinstance(error, self._psycopg.OperationalError)
            raise unavailable from error

    def sign_of_life(self, db: Db) -> None:
        cast(_Session, db).revive()
        db.execute("SELECT 1")

    def lay_out(self, db: Db, statements: Sequence[str]) -> None:
        for statement in statements:
            db.execute(_spelt(statement))

    def recover(self, db: Db) -> None:
        del db  # the next transaction connects anew where it must

    def touch(self, db: Db) -> None:
        db.execute("UPDATE journal_format SET version = version")

    def alive(self, db: Db, owner: str) -> bool:
        return not db.execute("SELECT pg_try_advisory_xact_lock(?)", (_lock_of(owner),)).fetchone()[0]

    def problems(self, db: Db) -> list[str]:
        del db  # pages are checked by the server, where it was set up with checksums
        return []

    def compact(self, db: Db) -> None:
        for table in _TABLES:
            db.execute(f"VACUUM (FULL) {table}")

    def close(self) -> None:
        """Nothing but connections was taken."""

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A new session in autocommit mode."""
        found: psycopg.Connection[tuple[Any, ...]]
        found = self._psycopg.connect(self._url, autocommit=True, **_PATIENT)
        return found


class _Session:
    """A connection that is made anew once it is lost; with an owner, it holds the lock that says he lives."""

    def __init__(self, store: PostgresStore, owner: str | None) -> None:
        self._store, self._owner = store, owner
        self._held = False
        self._db = store.connect()
        self.revive()

    def revive(self) -> None:
        """Connects anew where the connection is gone."""
        if self._db.closed:
            self._db, self._held = self._store.connect(), False
        if self._owner is not None and not self._held:
            self.execute(_WATCHFUL)
            # Not to be had while the server still believes in the session that was lost.
            asked = self.execute("SELECT pg_try_advisory_lock(?)", (_lock_of(self._owner),))
            self._held = bool(asked.fetchone()[0])

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        # PostgreSQL keeps no NUL in text.
        bound = [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]
        return self._db.execute(_marked(sql), bound or None)

    def close(self) -> None:
        self._db.close()


@functools.lru_cache(maxsize=256)
def _marked(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()


def _spelt(statement: str) -> str:
    """A statement of SQLite's schema as PostgreSQL writes it."""
    statement = re.sub(r"\) STRICT(, WITHOUT ROWID)?$", ")", statement)
    # A run's line goes before its events when it is removed.
    statement = statement.replace(
        "REFERENCES runs (id)", "REFERENCES runs (id) DEFERRABLE INITIALLY DEFERRED"
    )
    return re.sub(r"\b(BLOB|REAL|INTEGER)\b", lambda found: _TYPES[found[1]], statement)


def _lock_of(owner: str) -> int:
    return int.from_bytes(hashlib.sha256(owner.encode()).digest()[:8], signed=True)


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError:
        raise Incompatible(
            "a journal in PostgreSQL needs psycopg, which is not installed",
            hint="pip install 'pentad[postgres]'",
            param="journal",
        ) from None
    return psycopg
