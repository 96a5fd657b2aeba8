"""Task scores: what both models make of the suites that `pentad eval` has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.model.certification.base import Bench, Better, Measured, Row
from pentad.model.intervals import wilson
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProbe:
    """Cases of a suite, each with both models."""

    suite: str
    cases: int

    @property
    def key(self) -> str:
        return f"task-{self.suite}-{self.cases}"

    def units(self, bench: Bench) -> int:
        return bench.tasks.cases(self.suite, self.cases)

    def measure(self, bench: Bench, unit: int) -> Row:
        row: dict[str, float] = {}
        for prefix, subject in (("source_", bench.source), ("", bench.derived)):
            row[prefix + "solved"] = bench.tasks.score(
                self.suite, unit, self.cases, subject.stored.name, usual=subject is bench.source
            )
        return row

    def data(self, bench: Bench) -> Mapping[str, str]:
        return {self.suite: bench.tasks.digest(self.suite)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskShare:
    """Base: the share of a suite's cases that are solved. A subclass names the suite."""

    cases: int = 50
    """At most, from the start of the data; 1 or more."""

    suite: ClassVar[str]
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"
    timed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        in_range("cases", self.cases, least=1, most=10**6)

    @property
    def probe(self) -> TaskProbe:
        return TaskProbe(suite=self.suite, cases=self.cases)

    def value(self, rows: Sequence[Row]) -> Measured:
        found = round(sum(row["solved"] for row in rows))
        low, high = wilson(found, len(rows))
        return Measured(
            value=found / len(rows),
            low=low,
            high=high,
            interval="95%, Wilson over cases",
            count=len(rows),
            source=sum(row["source_solved"] for row in rows) / len(rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gsm8kScore(TaskShare):
    """Share of grade-school word problems solved (GSM8K); the interval is Wilson's over cases."""

    name: ClassVar[str] = "gsm8k"
    suite: ClassVar[str] = "gsm8k"


@dataclass(frozen=True, slots=True, kw_only=True)
class BfclScore(TaskShare):
    """Share of requests served by a right function call (BFCL v4, simple); Wilson's interval over cases."""

    name: ClassVar[str] = "bfcl"
    suite: ClassVar[str] = "bfcl-simple"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallValidity(TaskShare):
    """Share of BFCL requests answered by calls alone that name an offered function and fit its schema.

    Right or not; the interval is Wilson's over cases.
    """

    name: ClassVar[str] = "tool-calls"
    suite: ClassVar[str] = "bfcl-validity"
