"""A disk that is full, and one whose fsync fails, under a serving process: told, waited out, nothing lost."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def drilled(folder: pathlib.Path, kind: str, **environment: str) -> dict[str, Any]:
    """What the drill's clients saw."""
    done = subprocess.run(
        [sys.executable, str(HERE / "journal_fault_drill.py"), str(folder), kind],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def check(seen: dict[str, Any], trouble: str) -> None:
    assert seen["ready_before"] == 200
    assert seen["refused"][0] == 503
    assert trouble in seen["refused"][1]
    assert seen["ready_during"][0] == 503
    assert trouble in seen["ready_during"][1]
    assert seen["alive_during"] == 200
    # Who follows is told and can come back; the run goes on without them.
    assert any(trouble in line for line in seen["followed"])
    assert seen["status"] == "answered"
    assert seen["ready_after"]
    assert seen["effects"] == 1
    assert seen["problems"] == []
    assert seen["kinds"].count("tool_returned") == 1
    assert "run_resumed" not in seen["kinds"]


def test_a_full_disk_stalls_the_run_until_there_is_space(small_disk: pathlib.Path) -> None:
    check(drilled(small_disk, "full"), "disk is full")


def test_a_failed_fsync_stalls_the_run_and_turns_readiness_off(tmp_path: pathlib.Path) -> None:
    shim = tmp_path / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, str(HERE / "fsync_shim.c")], check=True)
    fails = str(tmp_path / "fail")
    check(drilled(tmp_path, "sync", LD_PRELOAD=str(shim), FSYNC_FAILS=fails), "disk I/O error")
