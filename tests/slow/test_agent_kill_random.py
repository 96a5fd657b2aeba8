"""kill -9 at 200 random instants of a run with side effects: the ledger outside is as after none."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

DRILL = pathlib.Path(__file__).parents[1] / "e2e" / "agent_kill_drill.py"
CASES, SEED = 200, 7
KEYED, UNKEYED = [0, 3, 100], [1, 4]

pytestmark = pytest.mark.slow


def test_the_ledger_is_whole_after_kills_at_200_random_instants() -> None:
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
    _, *cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(cases) == CASES
    for case in cases:
        # Killed before its first commit the run never began: then nothing happened outside either.
        assert case["statuses"] in (["answered"], []), case
        assert case["problems"] == [], case
        assert case["unapproved"] == 0, case
        assert case["keyed"] == (KEYED if case["statuses"] else []), case
        assert len(set(case["unkeyed"])) == len(case["unkeyed"]), case
        if case["statuses"]:
            assert len(UNKEYED) - len(case["unkeyed"]) <= case["told_unknown"], case
        else:
            assert case["unkeyed"] == [], case
    kills = sum(case["killed"] for case in cases)
    begun = sum(bool(case["statuses"]) for case in cases)
    print(f"{kills} kills in {CASES} cases, {begun} of them after the run began")
    assert kills >= 100
    assert begun >= 100
