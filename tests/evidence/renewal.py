"""Collecting the marked tests, and running those whose record no longer speaks for this tree."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evidence.records import RECORD, RESULTS, all_records, commits_since, git, read_lines
from evidence.subjects import ROOT, digests, read_subjects, subject_files
from evidence.table import COVERAGE, read_table
from evidence.verdict import Marked, Report, judge

PYTHON = str(ROOT / ".venv" / "bin" / "python")


def collect() -> list[Marked]:
    """Every marked test that pytest finds now. Raises ValueError when it cannot collect them."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.jsonl"
        command = [PYTHON, "-m", "pytest", "-q", "--collect-only", "--rows-file", str(target)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"pytest cannot collect the tests:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        names = ("row", "kind", "test", "slow", "negative")
        return [
            Marked(**{name: line[name] for name in names}, claims=tuple(line["claims"]))
            for line in read_lines(target)
        ]


def report() -> Report:
    """The report on this checkout. Raises ValueError where marks, table and subjects disagree."""
    sys.path.insert(0, str(ROOT / "src"))
    from pentad.registry import TABLE

    rows = read_table(COVERAGE.read_text(encoding="utf-8"))
    subjects = read_subjects()
    marks = collect()
    files = {row: subject_files(found, TABLE) for row, found in subjects.items()}
    return judge(
        rows,
        marks,
        all_records(),
        digests=lambda row, test: digests((test.partition("::")[0], *files[row])),
        age=commits_since,
    )


def why_old() -> str | None:
    """Why the CI suite's record may not speak for this commit; None when it does."""
    lines = read_lines(RECORD)
    if not lines:
        return "there is no record of a test run"
    if {line.get("commit") for line in lines} != {git("rev-parse", "HEAD")}:
        return "the recorded test run is of another commit"
    if any(line.get("dirty") for line in lines):
        return "the recorded test run is of a tree with uncommitted changes, so it counts for nothing"
    return None


def run_fast() -> int:
    """Runs the marked tests of the CI suite; pytest's output goes to stderr."""
    return _pytest("-m", "row and not slow", "--rows-file", str(RECORD))


def renew(found: Report, *, quiet_load: float) -> int:
    """Runs every marked slow test without a valid record; gives the number that did not pass.

    Each waits for a quiet machine and is written down as soon as it ends, so that a stop loses
    at most the one under way. A dirty tree is refused: its records would count for nothing.
    """
    if git("status", "--porcelain", "--", ":!benchmarks/results"):
        raise ValueError("the tree has uncommitted changes; commit first, or the records count for nothing")
    due = sorted(
        {e.mark.test for es in found.evidence.values() for e in es if e.mark.slow and e.state != "passed"}
    )
    target = RESULTS / f"rows-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.jsonl"
    failed = 0
    for i, test in enumerate(due, 1):
        _wait_until_quiet(quiet_load)
        print(f"coverage_rows: {i} of {len(due)}: {test}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "rows.jsonl"
            failed += _pytest("-m", "slow", test, "--rows-file", str(part)) != 0
            if part.exists():
                with target.open("a", encoding="utf-8") as out:
                    out.write(part.read_text(encoding="utf-8"))
    print(f"coverage_rows: {len(due) - failed} of {len(due)} passed; commit {target.name}", file=sys.stderr)
    return failed


def _wait_until_quiet(load: float) -> None:
    told = False
    while os.getloadavg()[0] > load:
        if not told:
            print(f"coverage_rows: waiting for a load average below {load}", file=sys.stderr, flush=True)
        told = True
        time.sleep(5)


def _pytest(*arguments: str) -> int:
    command = [PYTHON, "-m", "pytest", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode
