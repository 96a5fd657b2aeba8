"""kill -9 at 100 random points of a run with two sub-runs and a pending approval: as after none."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

DRILL = pathlib.Path(__file__).parents[1] / "e2e" / "sub_run_kill_drill.py"
CASES, SEED = 100, 11
KEYED, UNKEYED = [1, 10, 21, 23], [2, 11, 20]

pytestmark = pytest.mark.slow


def test_sub_runs_and_their_effects_happen_once_after_kills_at_100_random_points() -> None:
    memory = pathlib.Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        done = subprocess.run(
            [sys.executable, str(DRILL), folder, str(CASES), str(SEED)],
            capture_output=True,
            text=True,
            timeout=1500,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    whole, *cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert (whole["statuses"], whole["keyed"], whole["unkeyed"]) == (["answered"] * 3, KEYED, UNKEYED)
    assert len(cases) == CASES
    for case in cases:
        # Killed before its first commit the run never began: then nothing happened outside either.
        assert case["statuses"] in (["answered"] * 3, []), case
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
    assert kills >= 100
    assert begun >= 80
    assert inside >= 40
