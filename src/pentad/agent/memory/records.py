"""What long-term memory holds, for people: listed, exported and forgotten without any model."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pentad.agent.memory import file
from pentad.agent.memory.base import Item, Kind
from pentad.agent.sqlite import compact
from pentad.errors import NotFound

_COLUMNS = "tenant, agent, id, kind, text, source, importance, created_s, expires_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One item and whose it is."""

    tenant: str
    agent: str | None
    item: Item


def memories(
    path: pathlib.Path,
    *,
    tenant: str | None = None,
    agent: str | None = None,
    kind: Kind | None = None,
    limit: int = -1,
) -> list[Memory]:
    """What is remembered, newest first, expired or not; of all tenants and agents unless one is named."""
    wanted = {"tenant": tenant, "agent": agent, "kind": kind}
    asked = {column: value for column, value in wanted.items() if value is not None}
    where = " AND ".join(f"{column} = ?" for column in asked) or "1"
    if not path.exists():
        return []
    with file.translated(path), contextlib.closing(file.open_file(path)) as db:
        rows = db.execute(
            f"SELECT {_COLUMNS} FROM items WHERE {where} ORDER BY created_s DESC, number DESC LIMIT ?",
            (*asked.values(), limit),
        )
        return [_memory(*cast(Any, row)) for row in rows]


def forget(path: pathlib.Path, ids: Sequence[str], *, tenant: str | None = None) -> list[str]:
    """Removes items, of all tenants unless one is named, and returns the ids that there were.

    The file is written anew, so that neither text, index nor vector is left in it.

    Raises NotFound, and removes nothing, when one of them is not there.
    """
    found: list[str] = []
    if path.exists():
        with file.translated(path), contextlib.closing(file.open_file(path)) as db:
            numbers = []
            for ident in ids:
                sql = "SELECT number FROM items WHERE id = ? AND (?2 IS NULL OR tenant = ?2)"
                rows = [cast(int, number) for (number,) in db.execute(sql, (ident, tenant))]
                numbers += rows
                found += [ident] * bool(rows)
            if len(found) == len(ids):
                with db:
                    file.erase(db, numbers)
                compact(db, path)
    lost = [ident for ident in ids if ident not in found]
    if lost:
        raise NotFound(f"no memory {lost[0]!r}", hint="pentad memory list shows them")
    return found


def forget_episodes(path: pathlib.Path, run_ids: Sequence[str]) -> int:
    """Removes what memory kept of runs as episodes, which repeat goal and answer; how many there were."""
    if not path.exists():
        return 0
    marks = ", ".join("?" * len(run_ids))
    with file.translated(path), contextlib.closing(file.open_file(path)) as db:
        sql = f"SELECT number FROM items WHERE kind = 'episode' AND source IN ({marks})"
        numbers = [cast(int, number) for (number,) in db.execute(sql, tuple(run_ids))]
        if numbers:
            with db:
                file.erase(db, numbers)
            compact(db, path)
    return len(numbers)


def _memory(
    tenant: str,
    agent: str | None,
    ident: str,
    kind: Kind,
    text: str,
    source: str,
    importance: float,
    created_s: float,
    expires_s: float | None,
) -> Memory:
    item = Item(
        id=ident,
        text=text,
        kind=kind,
        source=source,
        importance=importance,
        created_s=created_s,
        expires_s=expires_s,
    )
    return Memory(tenant=tenant, agent=agent, item=item)
