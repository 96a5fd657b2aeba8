"""The verdict on every row, from the tests that claim it and what is on record about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from evidence.records import KINDS, STALE_COMMITS, Record
from evidence.table import LAYERS, Row

STATUSES = ("works", "negative", "failing", "unproven", "half", "partial", "missing")
UNPROVEN = ("not run", "skipped", "expired", "stale", "unmeasured")
"""States of a test that neither show nor refute its row."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """One test that claims a row, as its mark says."""

    row: str
    kind: str
    test: str
    slow: bool
    claims: tuple[int, ...] = ()
    negative: bool = False
    """Whether it records honestly that the row's effect was not found."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A marked test with the state of its newest record."""

    mark: Marked
    state: str
    """passed, failed, or one of UNPROVEN."""
    why: str = ""
    record: Record | None = None


@dataclass
class Report:
    """The status of every row and what stands behind it."""

    rows: dict[str, Row]
    status: dict[str, str] = field(default_factory=dict)
    evidence: dict[str, list[Evidence]] = field(default_factory=dict)

    def layers(self) -> dict[str, dict[str, int]]:
        """Per layer, how many rows work of how many."""
        counts = {layer: {"works": 0, "total": 0} for layer in LAYERS.values()}
        for row in self.rows.values():
            counts[row.layer]["total"] += 1
            counts[row.layer]["works"] += self.status[row.id] == "works"
        return counts

    def holders(self, row: str, claim: int) -> list[str]:
        """The passing tests that hold a claim."""
        found = [e for e in self.evidence[row] if claim in e.mark.claims]
        return [e.mark.test for e in found if e.state == "passed"]


Digests = Callable[[str, str], Mapping[str, str]]
"""(row, test) to the present digests of the files that a record of it is about."""
Age = Callable[[str], int | None]
"""A commit to how many commits ago it was; None for one that is not in the history."""


def judge(
    rows: Mapping[str, Row],
    marks: Iterable[Marked],
    records: Mapping[tuple[str, bool], Record],
    *,
    digests: Digests,
    age: Age,
) -> Report:
    """The report on `rows`.

    Raises ValueError where a mark claims a row, a claim or a kind that does not exist.
    """
    report = Report(dict(rows), evidence={row: [] for row in rows})
    for mark in marks:
        check_mark(mark, rows)
        record = records.get((mark.test, mark.slow))
        state, why = _state(mark, record, digests, age)
        report.evidence[mark.row].append(Evidence(mark=mark, state=state, why=why, record=record))
    for row in rows.values():
        report.status[row.id] = row_status(row, report.evidence[row.id])
    return report


def check_mark(mark: Marked, rows: Mapping[str, Row]) -> None:
    """Raises ValueError for a mark that claims a row, a claim or a kind that does not exist."""
    if mark.row not in rows:
        raise ValueError(f"{mark.test} claims row {mark.row!r}, which the table does not have")
    if mark.kind not in KINDS:
        raise ValueError(f"{mark.test}: kind {mark.kind!r} of row {mark.row!r} must be mechanism or effect")
    claims = rows[mark.row].claims
    for number in mark.claims:
        if not 1 <= number <= len(claims):
            raise ValueError(f"{mark.test}: row {mark.row!r} has claims 1 to {len(claims)}, not {number}")
        if claims[number - 1].measurable and mark.kind == "mechanism":
            raise ValueError(
                f"{mark.test}: claim {number} of row {mark.row!r} states a quantity; "
                "a mechanism test cannot hold it"
            )


def _state(mark: Marked, record: Record | None, digests: Digests, age: Age) -> tuple[str, str]:
    if record is None:
        return "not run", ""
    if record.outcome != "passed":
        return record.outcome, ""
    if record.subjects is None:
        return "expired", "the record does not say what it is about"
    now = digests(mark.row, mark.test)
    changed = sorted(name for name, digest in now.items() if record.subjects.get(name) != digest)
    if changed:
        return "expired", f"changed since: {', '.join(changed)}"
    commits = age(record.commit)
    if commits is None or commits > STALE_COMMITS:
        return "stale", f"recorded {commits if commits is not None else 'an unknown number of'} commits ago"
    if mark.kind == "effect" and not record.bounded:
        return "unmeasured", "the record holds no value with its bound"
    return "passed", ""


def row_status(row: Row, evidence: list[Evidence]) -> str:
    """One of STATUSES.

    failing: a test failed. unproven: a test has no valid record. half: a kind of test is missing.
    partial: a claim of "works when" is held by no test. negative: an effect was honestly not found.
    """
    if not evidence:
        return "missing"
    states = {e.state for e in evidence}
    if "failed" in states:
        return "failing"
    if states & set(UNPROVEN):
        return "unproven"
    if any(e.mark.negative for e in evidence):
        return "negative"
    if not row.needs <= {e.mark.kind for e in evidence}:
        return "half"
    held = {number for e in evidence for number in e.mark.claims}
    return "works" if held >= {claim.number for claim in row.claims} else "partial"
