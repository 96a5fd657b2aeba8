"""Records of test runs: one JSON line per marked test and row, read newest first."""

from __future__ import annotations

import functools
import json
import pathlib
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evidence.subjects import ROOT

RECORD = ROOT / ".coverage-results.jsonl"
"""The CI suite's own record, written by scripts/test."""
RESULTS = ROOT / "benchmarks" / "results"
"""Committed records of slow tests."""
STALE_COMMITS = 300
KINDS = frozenset({"mechanism", "effect"})


@dataclass(frozen=True, kw_only=True)
class Record:
    """What came of one run of one test."""

    test: str
    slow: bool
    outcome: str
    at_s: float
    """When it ended, seconds since 1970; the commit's time where the line has none."""
    commit: str
    dirty: bool
    """Whether files differed from the commit. Such a record counts for nothing."""
    subjects: Mapping[str, str] | None
    """File to digest at the time; None in lines older than this rule."""
    measured: tuple[Mapping[str, Any], ...] = field(default=())
    """{name, value, at_least | at_most} of every measurement."""

    @property
    def bounded(self) -> bool:
        """Whether it holds at least one value together with its bound."""
        return any("value" in m and ("at_least" in m or "at_most" in m) for m in self.measured)


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; none when it does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def parse(line: Mapping[str, Any]) -> Record:
    """A record from its line."""
    value = line.get("value") or {}
    measured = value.get("measured", ()) if isinstance(value, dict) else ()
    return Record(
        test=str(line["test"]),
        slow=bool(line["slow"]),
        outcome=str(line["outcome"]),
        at_s=float(line["at_s"]) if "at_s" in line else commit_time_s(str(line["commit"])),
        commit=str(line["commit"]),
        dirty=bool(line.get("dirty", False)),
        subjects=line.get("subjects"),
        measured=tuple(measured),
    )


def newest(records: Iterable[Record]) -> dict[tuple[str, bool], Record]:
    """(test, slow) to its newest record by time, those of a dirty tree left out.

    Of records of one instant the worst counts: a pass never hides a failure beside it.
    """
    order = {"failed": 2, "skipped": 1}
    found: dict[tuple[str, bool], Record] = {}
    for record in records:
        if record.dirty:
            continue
        known = found.get((record.test, record.slow))
        rank = (record.at_s, order.get(record.outcome, 0))
        if known is None or rank > (known.at_s, order.get(known.outcome, 0)):
            found[record.test, record.slow] = record
    return found


def all_records() -> dict[tuple[str, bool], Record]:
    """The newest record of every test: fast ones from the CI suite's record, slow ones from the results."""
    lines = [line for line in read_lines(RECORD) if not line["slow"]]
    for path in RESULTS.glob("rows-*.jsonl"):
        lines += [line for line in read_lines(path) if line["slow"]]
    return newest(parse(line) for line in lines)


def git(*arguments: str) -> str:
    """What git prints; empty when it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


@functools.cache
def commit_time_s(commit: str) -> float:
    """The committer's time of a commit; 0 for one that is not in this repository."""
    return float(git("show", "-s", "--format=%ct", commit) or 0)


@functools.cache
def commits_since(commit: str) -> int | None:
    """How many commits lie between it and HEAD; None for one that is not in this history."""
    # A commit is its own merge base with HEAD exactly when it lies in HEAD's history.
    if not commit or git("merge-base", commit, "HEAD") != git("rev-parse", commit):
        return None
    return int(git("rev-list", "--count", f"{commit}..HEAD"))
