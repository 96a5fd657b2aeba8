"""kill -9 at every journal write of a six-step run with side effects: each effect exactly once."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

DRILL = pathlib.Path(__file__).with_name("agent_kill_drill.py")
KEYED = [0, 3, 100]
UNKEYED = [1, 4]


@pytest.fixture(scope="module")
def cases() -> Iterator[list[dict[str, Any]]]:
    # Memory where there is a file system of it: kill -9 loses no page cache, and waiting for the
    # disk at each of some thousand commits would only cost time.
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield _drilled(folder)


def _drilled(folder: str) -> list[dict[str, Any]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(DRILL), folder],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    head, *lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert head["commits"] > 20
    assert len(lines) == 2 * head["commits"]
    return lines


def test_every_case_was_really_killed(cases: list[dict[str, Any]]) -> None:
    assert all(case["killed"] for case in cases)
    assert sum(case["killed_again"] for case in cases) > len(cases) / 3


def test_every_started_run_ends_and_no_journal_is_damaged(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        # Killed before its first commit the run never began; nothing else is excused.
        started = not (case["kill_at"] == 1 and case["when"] == "before")
        assert case["statuses"] == ["answered"] * started, case
        assert case["problems"] == [], case


@pytest.mark.row("agent-core", "mechanism")
def test_every_keyed_effect_happens_exactly_once(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        assert case["keyed"] == (KEYED if case["statuses"] else []), case


def test_an_unkeyed_effect_never_happens_twice_and_doubt_is_told(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        if not case["statuses"]:
            continue
        assert len(set(case["unkeyed"])) == len(case["unkeyed"]), case
        missing = len(UNKEYED) - len(case["unkeyed"])
        assert missing <= case["told_unknown"] <= 1, case
    assert any(case["told_unknown"] for case in cases)


def test_no_effect_precedes_its_approval_and_no_question_is_put_twice(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        assert case["unapproved"] == 0, case
