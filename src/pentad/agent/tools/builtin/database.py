"""`database`: questions to a private SQLite file, of which each tenant sees its own rows and nothing else."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import pathlib
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pentad.agent.tools.base import Tool, ToolContext, ToolServices
from pentad.errors import Forbidden, InvalidRequest, ToolFailed

_QUERY = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "minLength": 1, "maxLength": 4000, "description": "One SELECT"}
    },
    "required": ["query"],
    "additionalProperties": False,
}
_SCALAR = (
    "abs coalesce date datetime ifnull iif instr julianday length like lower ltrim nullif printf format "
    "replace round rtrim strftime substr substring time trim upper"
)
_AGGREGATE = (
    "avg count group_concat max min sum total row_number rank dense_rank lag lead first_value last_value"
)
_FUNCTIONS = frozenset(f"{_SCALAR} {_AGGREGATE}".split())
_CELL_CHARACTERS = 500
_OPS_PER_LOOK = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one tenant may see."""

    owner: str | int
    """The value of the owner column in its rows."""
    tables: tuple[str, ...] = ()
    """Tables that it may read; empty are all that have the owner column."""


def build(
    _: ToolServices,
    *,
    database: str = "",
    owner_column: str = "owner",
    grants: Mapping[str, Grant] = {},
    audit: str = "",
    name: str = "database",
    about: str = "Answers a question in SQL (SQLite) from the database.",
    most_rows: int = 50,
    timeout_s: float = 10.0,
) -> Tool:
    """A tool that runs one SELECT on the rows of whoever the run is for.

    The tenant comes from the run, never from the model. Each call has a connection of its own, opened for
    reading, in which the tables are views of the tenant's rows; whatever reaches past these views, changes
    anything or is no plain function is refused by SQLite's authorizer, whatever the query says. A tenant
    without a grant is refused. With `audit` every query is written down, with who asked and what came of
    it, before its result is given.

    Args:
        database: the SQLite file.
        owner_column: says whose a row is; a table without it is not shown.
        grants: by tenant, `owner` and perhaps `tables`.
        audit: file that gets a line of JSON per query; empty writes none.
        name: as the model sees the tool.
        about: what the model is told of it, before the tables.
        most_rows: of a result; what is more is told.
        timeout_s: of a query.

    Raises InvalidRequest without a file, for a file that cannot be read, and where no table can be shown.
    """
    path = pathlib.Path(database).expanduser()
    if database != ":memory:" and not path.is_file():
        raise InvalidRequest(
            f"there is no database {database!r:.200}",
            hint="give tool_options.database.database, an SQLite file",
            param="tool_options.database.database",
        )
    tables = {} if database == ":memory:" else _tables(path, owner_column)

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> str:
        return await asyncio.to_thread(answered, arguments["query"], context)

    def answered(query: str, context: ToolContext) -> str:
        said: dict[str, Any] = {"tenant": context.tenant, "run": context.run_id, "query": query}
        try:
            grant = grants.get(context.tenant)
            if grant is None:
                raise Forbidden(f"tenant {context.tenant!r} has no grant for {name!r}")
            shown = {t: columns for t, columns in tables.items() if not grant.tables or t in grant.tables}
            rows = _Session(path, shown, owner_column, grant.owner).rows(query, most_rows, context, timeout_s)
        except (Forbidden, ToolFailed) as error:
            _written(audit, {**said, "refused": str(error)}, context)
            raise
        _written(audit, {**said, "rows": len(rows) - 1}, context)
        return "\n".join(rows)

    listed = "; ".join(f"{table}({', '.join(columns)})" for table, columns in tables.items())
    return Tool(
        name=name,
        description=f"{about} Tables: {listed or 'none'}.",
        parameters=_QUERY,
        call=call,
        effects="none",
        timeout_s=timeout_s + 5,
    )


def _tables(path: pathlib.Path, owner_column: str) -> dict[str, list[str]]:
    """The tables that have the owner column, each with its other columns."""
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as opened:
            names = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found = {name: _columns(opened, name) for name in sorted(names)}
        opened.close()
    except sqlite3.Error as error:
        raise InvalidRequest(
            f"{str(path)!r:.200} cannot be read: {error}", param="tool_options.database.database"
        ) from None
    shown = {
        n: [c for c in columns if c != owner_column]
        for n, columns in found.items()
        if owner_column in columns
    }
    if not shown:
        raise InvalidRequest(
            f"no table of {str(path)!r:.200} has the column {owner_column!r}",
            hint="give tool_options.database.owner_column",
            param="tool_options.database.owner_column",
        )
    return shown


def _columns(opened: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in opened.execute(f"PRAGMA table_info({_quoted(table)})")]


class _Session:
    """One connection for one query of one tenant.

    The file is attached under a name that nobody can guess, and only our views say it: so a query that
    names a table of the file itself names nothing.
    """

    def __init__(
        self, path: pathlib.Path, tables: Mapping[str, list[str]], owner_column: str, owner: str | int
    ) -> None:
        self._hidden = f"h{secrets.token_hex(16)}"
        self._tables = frozenset(tables)
        self._opened = sqlite3.connect(":memory:", uri=True)
        self._opened.execute(f"ATTACH ? AS {self._hidden}", (f"{path.absolute().as_uri()}?mode=ro",))
        value = str(owner) if isinstance(owner, int) else "'" + owner.replace("'", "''") + "'"
        for table, columns in tables.items():
            listed = ", ".join(map(_quoted, columns)) or "1 AS nothing"
            self._opened.execute(
                f"CREATE TEMP VIEW {_quoted(table)} AS SELECT {listed} FROM {self._hidden}.{_quoted(table)} "
                f"WHERE {_quoted(owner_column)} = {value}"
            )
        self._opened.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 20)
        self._opened.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 1)
        self._opened.set_authorizer(self._allows)

    def rows(self, query: str, most: int, context: ToolContext, timeout_s: float) -> list[str]:
        """The header and the rows, as lines. Raises ToolFailed, worded for the model, and Forbidden."""
        ends_s = context.clock() + timeout_s
        self._opened.set_progress_handler(lambda: int(context.clock() > ends_s), _OPS_PER_LOOK)
        try:
            cursor = self._opened.execute(query)
            found = cursor.fetchmany(most + 1)
            header = [column[0] for column in cursor.description or ()]
        except (sqlite3.Error, sqlite3.Warning) as error:
            text = str(error).replace(self._hidden, "file")
            if "not authorized" in text or "prohibited" in text:
                raise Forbidden("the query reaches for something that may not be read") from None
            over = context.clock() > ends_s
            raise ToolFailed(f"no result within {timeout_s:g} s" if over else f"SQL: {text[:300]}") from None
        finally:
            self._opened.close()
        lines = [" | ".join(header), *(" | ".join(map(_cell, row)) for row in found[:most])]
        return [*lines, f"[more than {most} rows; narrow the query]"] if len(found) > most else lines

    def _allows(
        self, action: int, first: str | None, second: str | None, base: str | None, _: str | None
    ) -> int:
        match action:
            case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
                return sqlite3.SQLITE_OK
            case sqlite3.SQLITE_READ:
                ours = base in ("temp", self._hidden) and first in self._tables
                return sqlite3.SQLITE_OK if ours else sqlite3.SQLITE_DENY
            case sqlite3.SQLITE_FUNCTION:
                plain = (second or "").lower() in _FUNCTIONS
                return sqlite3.SQLITE_OK if plain else sqlite3.SQLITE_DENY
            case _:
                return sqlite3.SQLITE_DENY


def _cell(value: Any) -> str:
    text = "" if value is None else value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= _CELL_CHARACTERS else f"{text[:_CELL_CHARACTERS]}..."


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _written(audit: str, line: Mapping[str, Any], context: ToolContext) -> None:
    """Writes one line, to the disk. Raises ToolFailed where it cannot: then no result is given."""
    if not audit:
        return
    at = datetime.datetime.fromtimestamp(context.wall(), datetime.UTC).isoformat(timespec="milliseconds")
    try:
        file = os.open(pathlib.Path(audit).expanduser(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, json.dumps({"at": at, **line}, ensure_ascii=False).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise ToolFailed(f"the query cannot be written down: {error.strerror}") from None
