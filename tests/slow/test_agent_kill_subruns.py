"""kill -9 at 300 random points of a run with three sub-runs and a pending approval: as after none."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import pytest

from postgres_server import disturbed, postgres

DRILL = pathlib.Path(__file__).parents[1] / "e2e" / "sub_run_kill_drill.py"
CASES, SEED = 300, 11
KEYED, UNKEYED = [1, 10, 21, 23, 30, 33, 34], [2, 11, 20, 31, 32]
"""Twelve effects: where the receiver knows a key that it has seen, and where it takes everything."""

pytestmark = pytest.mark.slow


def drilled(environment: Mapping[str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The run without a kill, and the cases."""
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        done = subprocess.run(
            [sys.executable, str(DRILL), folder, str(CASES), str(SEED)],
            capture_output=True,
            text=True,
            timeout=3000,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    whole, *cases = [json.loads(line) for line in done.stdout.splitlines()]
    return whole, cases


def check(whole: dict[str, Any], cases: list[dict[str, Any]]) -> None:
    assert (whole["statuses"], whole["keyed"]) == (["answered"] * 4, KEYED)
    assert len(cases) == CASES
    for case in cases:
        # Killed before its first commit the run never began: then nothing happened outside either.
        assert case["statuses"] in (["answered"] * 4, []), case
        assert case["problems"] == [], case
        assert case["budgets"] == [], case
        assert case["unapproved"] == 0, case
        assert case["keyed"] == (KEYED if case["statuses"] else []), case
        assert len(set(case["unkeyed"])) == len(case["unkeyed"]), case
        if case["statuses"]:
            assert len(UNKEYED) - len(case["unkeyed"]) <= case["told_unknown"], case
        else:
            assert case["unkeyed"] == [], case
    kills = sum(case["killed"] for case in cases)
    begun = sum(bool(case["statuses"]) for case in cases)
    inside = sum(case["resumed"] > 1 for case in cases)
    print(f"{kills} kills in {CASES} cases, {begun} after the run began, {inside} with sub-runs under way")
    assert kills >= CASES
    assert begun >= 0.8 * CASES
    assert inside >= 0.4 * CASES


def test_sub_runs_and_their_effects_happen_once_after_kills_at_300_random_points() -> None:
    whole, cases = drilled({})
    assert whole["unkeyed"] == UNKEYED
    check(whole, cases)


def test_the_same_in_postgresql_with_the_server_killed_too() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres())
        # Four runs at once need some seconds between two deaths of the server to get on at all.
        with disturbed(server, SEED, every_s=(2.0, 8.0)) as kills:
            whole, cases = drilled({"DRILL_POSTGRES": server.url})
        print(f"{kills()} kills of the server")
        assert kills() >= 50
    check(whole, cases)
