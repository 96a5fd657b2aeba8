"""kill -9 of the server at every journal write of a run: after a restart it ends, effects once."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

DRILL = pathlib.Path(__file__).with_name("server_kill_drill.py")
KEYED = [0, 3, 100]
UNKEYED = [1, 4]


@pytest.mark.row("agent-core", "mechanism")
def test_a_run_survives_the_death_of_its_server_at_every_journal_write(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DRILL), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    whole, *cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert whole["statuses"] == ["answered"]
    assert (whole["keyed"], whole["unkeyed"]) == (KEYED, UNKEYED)
    assert whole["commits"] > 20
    assert len(cases) == 2 * whole["commits"]
    assert all(case["killed"] for case in cases)
    for case in cases:
        # Before its first commit the run never began; nothing else is excused.
        if case["kill_at"] == 1 and case["when"] == "before":
            assert (case["statuses"], case["keyed"], case["unkeyed"]) == ([], [], [])
            continue
        assert case["statuses"] == ["answered"], case
        assert case["keyed"] == KEYED, case
        # Whoever cannot see a repetition gets each effect at most once; a doubt is told to the model.
        assert set(case["unkeyed"]) <= set(UNKEYED), case
        assert len(set(case["unkeyed"])) == len(case["unkeyed"]), case
