"""What long-term memory holds, for people: listed, exported and forgotten without any model."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pentad.agent.memory import file
from pentad.agent.memory.base import Item, Kind, Scope
from pentad.agent.memory.lineage import all_there
from pentad.agent.sqlite import compact


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
            f"SELECT tenant, agent, {file.COLUMNS} FROM items WHERE {where} "
            "ORDER BY created_s DESC, number DESC LIMIT ?",
            (*asked.values(), limit),
        )
        return [
            Memory(tenant=tenant, agent=agent, item=file.item_of(row))
            for tenant, agent, *row in cast(Any, rows)
        ]


def forget(path: pathlib.Path, ids: Sequence[str], *, tenant: str | None = None) -> list[str]:
    """Removes items with their versions and what was made of them; of all tenants unless one is named.

    The file is written anew, so that neither text, index nor vector is left in it. Returns the ids that went.

    Raises NotFound, and removes nothing, when one of them is not there.
    """
    wanted = dict.fromkeys(ids)
    owners = [(m.tenant, str(m.item.id)) for m in memories(path, tenant=tenant) if m.item.id in wanted]
    all_there(ids, [ident for _, ident in owners])
    gone: dict[str, None] = {}
    for owner in dict.fromkeys(tenant for tenant, _ in owners):
        with file.translated(path), contextlib.closing(file.open_file(path)) as db:
            own = [ident for tenant, ident in owners if tenant == owner]
            gone |= dict.fromkeys(file.forget(db, path, own, Scope(tenant=owner)))
    return list(gone)


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
