"""JournalView: what is read from a journal file. Nothing is believed that the key did not seal."""

from __future__ import annotations

import contextlib
import hmac
import re
import threading
from collections.abc import Iterator, Sequence

from pentad.agent import part_store, prompt_store
from pentad.agent.events import Record, RunEnded, RunStarted
from pentad.agent.journal_store.base import ALL, Db, JournalStore
from pentad.agent.prompt_store import Prompt, PromptRetention
from pentad.agent.rows import (
    DAMAGED,
    EVENT_COLUMNS,
    JournalDamaged,
    RunRow,
    check_status,
    damaged,
    from_row,
    name_of,
    no_run,
)
from pentad.agent.run_status import UNFINISHED
from pentad.agent.seal import Seal
from pentad.agent.sqlite import storable
from pentad.errors import PentadError
from pentad.types import Clock

_LINES = f"""
    SELECT id, ended_s, status, {", ".join(f"first.{name}" for name in EVENT_COLUMNS.split(", "))}
    FROM runs LEFT JOIN events AS first ON first.run_id = id AND first.sequence = 1
"""
_MOST_LOOKED_FOR = 10_000
"""Characters of a pattern, which SQLite limits to 50,000 bytes."""


class JournalView:
    """Reads the runs and their events.

    Args:
        store: the database.
        reader: a connection to it.
        seal: its key.
        retention: which prompts are shown, and for how long.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        store: JournalStore,
        reader: Db,
        seal: Seal,
        *,
        retention: PromptRetention,
        wall: Clock,
    ) -> None:
        self.store = store
        self.retention = retention
        self._reader, self._seal, self._wall = reader, seal, wall
        self._lock = threading.Lock()

    def read(self, run_id: str, after: int = 0) -> list[Record]:
        """The run's records with a sequence above `after`, each checked, the last one known as the last.

        Raises NotFound for no such run, JournalDamaged for a row that no journal wrote or one that is gone.
        """
        with self._snapshot() as db:
            last = last_row(db, self._seal, run_id)
            rows = db.execute(
                f"SELECT {EVENT_COLUMNS} FROM events WHERE run_id = ? AND sequence >= ? ORDER BY sequence",
                (run_id, after),
            ).fetchall()
        records, tail = [], b""
        if after and rows:
            tail = _digest(rows.pop(0))
        for number, row in enumerate(rows, after + 1):
            records.append(from_row(run_id, number, row, tail, self._seal))
            tail = _digest(row)
        if after < last[0] and (after + len(records), tail) != last:
            raise damaged(run_id, "the end", f"event {last[0]} was the last, {after + len(records)} is")
        return records

    def prompts(self, run_id: str) -> list[Prompt]:
        """What the run's model calls were asked, in order. Raises NotFound, JournalDamaged."""
        records = self.read(run_id)
        with self._snapshot() as db:
            return prompt_store.prompts(db, records, self._wall(), self.retention)

    def part(self, run_id: str, sha256: str) -> bytes | None:
        """The data of a part that the run was given; None where they were not kept, or are no more."""
        with self._snapshot() as db:
            return part_store.data(db, run_id, sha256, self._wall(), self.retention)

    def run(self, run_id: str) -> RunRow:
        """The run's line. Raises NotFound."""
        for row in self._lines("id = ?", (run_id,)):
            return row
        raise no_run(run_id)

    def root(self, run_id: str) -> str:
        """The run at the top of a run's tree: itself, unless it is a sub-run. Raises NotFound."""
        row = self.run(run_id)
        return row.id if row.parent is None else self.root(row.parent.run_id)

    def earlier(self, row: RunRow, limit: int = 8) -> list[list[Record]]:
        """The records of the tenant's runs that began last before `row`; damaged ones are left out."""
        found = []
        for one in self._lines("tenant = ? AND started_s < ?", (row.tenant, row.started_s), limit):
            with contextlib.suppress(JournalDamaged):
                if one.tenant == row.tenant:
                    found.append(self.read(one.id))
        return found

    def runs(self, *, tenant: str | None = None, status: str | None = None, limit: int = -1) -> list[RunRow]:
        """Runs, newest first: of one tenant or of all, in one state or in any.

        Whose a run is says its first event, so an edited list shows no run to another tenant.

        Raises UnknownName: no run is ever in that state.
        """
        check_status(status)
        wanted = {"tenant": tenant, "status": None if status == DAMAGED else status}
        asked = {column: value for column, value in wanted.items() if value is not None}
        rows = self._lines(" AND ".join(f"{c} = ?" for c in asked) or "TRUE", [*asked.values()])
        found = [r for r in rows if tenant in (None, r.tenant) and status in (None, r.status)]
        return found if limit < 0 else found[:limit]

    def saying(self, needles: Sequence[str]) -> list[str]:
        """The runs of which an event has one of these texts as the rows write it, sealed or not.

        SQLite finds them whatever their case; of a long text the first part is looked for.
        """
        found: dict[str, None] = {}
        with self._snapshot() as db:
            for needle in needles:
                quoted = re.sub(r"([!%_])", r"!\1", storable(needle[:_MOST_LOOKED_FOR]))
                sql = "SELECT DISTINCT run_id FROM events WHERE payload LIKE ? ESCAPE '!'"
                found |= dict.fromkeys(str(row[0]) for row in db.execute(sql, (f"%{quoted}%",)).fetchall())
        return list(found)

    def unfinished(self, *, but_of: str | None = None) -> list[RunRow]:
        """Runs of all tenants that have not ended, oldest first; without those that an owner has."""
        marks = ", ".join("?" * len(UNFINISHED))
        where, values = f"ended_s IS NULL AND status IN ({marks})", tuple[str, ...](UNFINISHED)
        if but_of is not None:
            where, values = f"{where} AND (owner IS NULL OR owner <> ?)", (*values, but_of)
        return self._lines(where, values)[::-1]

    def check_integrity(self) -> list[str]:
        """What is wrong with the file, line by line; empty when it is sound. Reads everything."""
        with self._snapshot() as db:
            problems = self.store.problems(db)
            listed = {
                i: (tenant, status) for i, tenant, status in db.execute("SELECT id, tenant, status FROM runs")
            }
        for run_id, (tenant, listed_as) in listed.items():
            try:
                records = self.read(run_id)
            except PentadError as error:
                problems.append(str(error))
                continue
            first, last = records[0].event, records[-1].event
            status = last.status if isinstance(last, RunEnded) else "not ended"
            agree = status == listed_as or (status == "not ended" and listed_as in UNFINISHED)
            if not agree:
                problems.append(f"run {run_id!r} is listed as {listed_as}, its events say {status}")
            if isinstance(first, RunStarted) and storable(first.tenant) != tenant:
                problems.append(f"run {run_id!r} is listed under another tenant than its events say")
            if sum(isinstance(r.event, RunStarted | RunEnded) for r in records) > 2:
                problems.append(f"run {run_id!r} starts or ends more than once")
        return problems

    def _lines(self, where: str, values: Sequence[object], limit: int = ALL) -> list[RunRow]:
        """Lines of the list, newest first. `where` is our own SQL, never a user's; values are bound."""
        sql = f"{_LINES} WHERE {where} ORDER BY started_s DESC, id LIMIT ?"
        with self._snapshot() as db:
            rows = db.execute(sql, (*values, limit)).fetchall()
        return [self._line(*row) for row in rows]

    def _line(self, run_id: str, ended_s: float | None, status: str, *first: object) -> RunRow:
        try:
            record = from_row(run_id, 1, first, b"", self._seal)
            event = record.event
            if not isinstance(event, RunStarted):
                raise damaged(run_id, "event 1", f"is {record.kind}")
            check_status(status)
        except PentadError:
            return RunRow(
                id=run_id, tenant="", agent="", goal="", started_s=0.0, ended_s=None, status=DAMAGED
            )
        return RunRow(
            id=run_id,
            tenant=event.tenant,
            agent=name_of(event),
            goal=storable(event.goal),
            started_s=record.at_s,
            ended_s=ended_s,
            status=status,
            parent=event.parent,
        )

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[Db]:
        """The reader, alone and on one state of the journal."""
        with self._lock, self.store.translated(), self.store.snapshot(self._reader):
            yield self._reader


def last_row(db: Db, seal: Seal, run_id: str) -> tuple[int, bytes]:
    """Number and digest of the run's last row, as the key sealed them. Raises NotFound, JournalDamaged."""
    row = db.execute(
        "SELECT last_sequence, last_digest, last_seal FROM runs WHERE id = ?", (run_id,)
    ).fetchone()
    if row is None:
        raise no_run(run_id)
    sequence, digest, made = row
    if (
        digest is None
        or made is None
        or not hmac.compare_digest(made, seal.last(run_id, sequence or 0, digest))
    ):
        raise damaged(run_id, "the end", "nothing says which event is the last")
    return sequence, digest


def _digest(row: Sequence[object]) -> bytes:
    return row[-1] if isinstance(row[-1], bytes) else b""
