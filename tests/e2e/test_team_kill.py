"""kill -9 in the middle of a team run, under every coordinator without a lead: as after none."""

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

from pentad import registry

DRILL = pathlib.Path(__file__).with_name("team_kill_drill.py")
LED = {"single", "supervisor"}
"""Coordinators that leave steps to the lead; agent_kill_drill and sub_run_kill_drill are about them."""


@pytest.fixture(scope="module")
def cases() -> Iterator[list[dict[str, Any]]]:
    # Memory where there is a file system of it: kill -9 loses no page cache.
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        done = subprocess.run(
            [sys.executable, str(DRILL), folder],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        yield [json.loads(line) for line in done.stdout.splitlines()]


def test_every_coordinator_without_a_lead_was_killed_in_the_middle(cases: list[dict[str, Any]]) -> None:
    assert {case["coordinator"] for case in cases} == {*registry.known("coordinator")} - LED
    assert all(case["killed"] for case in cases if "killed" in case)


def test_the_same_tasks_are_given_out_and_each_effect_happens_once(cases: list[dict[str, Any]]) -> None:
    whole = {case["coordinator"]: case for case in cases if "commits" in case}
    for case in cases:
        same = whole[case["coordinator"]]
        assert same["keyed"] == same["runs"] - 1 > 0, "each member pays once"
        assert case["problems"] == [], case
        assert case["held"] == [], case
        assert case["ended"], case
        assert case["top"] == same["top"], case
        assert (case["runs"], case["goals"], case["keyed"]) == (same["runs"], same["goals"], same["keyed"]), (
            case
        )
        # What nobody can repeat safely is not repeated: the member is told that it is in doubt.
        assert same["unkeyed"] - case["unknown"] <= case["unkeyed"] <= same["unkeyed"], case
