"""The ledger of shares: one line for each thing that a run used, chained by digests, and its audit."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pentad.agent.billing.meter import Metered
from pentad.agent.billing.shares import Kind, SharePlan, amount_of, split
from pentad.agent.codec import Malformed, decode, dumps
from pentad.errors import InvalidRequest
from pentad.json_text import parse_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one thing charged for one run, and how that was split."""

    number: int
    run_id: str
    kind: Kind
    name: str
    quantity: float
    amount: int
    """In the smallest parts of money."""
    shares: dict[str, int] = field(default_factory=dict)
    """By contributor; they sum to the amount."""
    before: str = ""
    """Digest of the entry in front."""
    digest: str = ""
    """Of all the rest."""

    def sealed(self) -> Entry:
        """The entry with its digest."""
        told = {name: value for name, value in asdict(self).items() if name != "digest"}
        return replace(self, digest=hashlib.sha256(dumps(told).encode()).hexdigest())


class ShareLedger:
    """Entries in their order; the lines of a file, and back.

    Invariant: the shares of each entry sum to its amount, and each entry holds the digest of the one in
    front, so an edit, a line taken out and a moved one are noticed. Whoever can write the file can write it
    anew from the edit on; keep the last digest elsewhere to notice that.
    """

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.entries = list(entries)

    @classmethod
    def of(cls, lines: Iterable[str]) -> ShareLedger:
        """The ledger of a file's lines. Raises InvalidRequest for a line that is none."""
        entries = []
        for number, line in enumerate(lines, 1):
            try:
                entries.append(decode(Entry, parse_json(line)))
            except (Malformed, ValueError) as error:
                raise InvalidRequest(f"line {number} of the ledger: {error}", param="ledger") from None
        return cls(entries)

    def add(self, run_id: str, used: Iterable[Metered], plan: SharePlan) -> tuple[Entry, ...]:
        """Charges what a run used. Raises InvalidRequest for a run that is charged already."""
        if any(entry.run_id == run_id for entry in self.entries):
            raise InvalidRequest(f"run {run_id!r} is in the ledger already", param="run")
        added = []
        for each in used:
            rate = plan.rate(each.kind, each.name)
            if rate is None:
                continue
            amount = amount_of(rate, each.quantity)
            entry = Entry(
                number=len(self.entries) + 1,
                run_id=run_id,
                kind=each.kind,
                name=each.name,
                quantity=float(each.quantity),
                amount=amount,
                shares=split(amount, rate.shares),
                before=self.entries[-1].digest if self.entries else "",
            ).sealed()
            self.entries.append(entry)
            added.append(entry)
        return tuple(added)

    def audit(self, plan: SharePlan) -> list[str]:
        """What is wrong with it, a sentence each; empty where every entry comes out as it stands."""
        found = []
        before = ""
        for number, entry in enumerate(self.entries, 1):
            rate = plan.rate(entry.kind, entry.name)
            if entry.number != number or entry.before != before:
                found.append(f"entry {number} does not follow the one in front")
            if entry.sealed().digest != entry.digest:
                found.append(f"entry {number} was changed: its digest is another's")
            if rate is None:
                found.append(f"entry {number} charges {entry.name!r}, of which no rate is declared")
            elif entry.amount != amount_of(rate, entry.quantity):
                found.append(f"entry {number} charges {entry.amount}, not {amount_of(rate, entry.quantity)}")
            elif entry.shares != split(entry.amount, rate.shares):
                found.append(f"entry {number} is split otherwise than was declared")
            before = entry.digest
        return found

    @property
    def billed(self) -> int:
        """The sum of all amounts, in the smallest parts."""
        return sum(entry.amount for entry in self.entries)

    @property
    def earned(self) -> dict[str, int]:
        """What each contributor has of it, by name."""
        total: Counter[str] = Counter()
        for entry in self.entries:
            total.update(entry.shares)
        return dict(sorted(total.items()))

    def lines(self, entries: Iterable[Entry]) -> list[str]:
        """Entries as lines of a file."""
        return [dumps(_plain(entry)) for entry in entries]


def _plain(entry: Entry) -> dict[str, Any]:
    return asdict(entry)
