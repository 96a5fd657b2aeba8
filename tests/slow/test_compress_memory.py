"""Compressing a model of 1.5 billion parameters within 2 GiB, through kills, to the same bytes."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import pytest

from evidence.plugin import Measure

pytestmark = pytest.mark.slow

CHILD = pathlib.Path(__file__).parent.parent / "compress_child.py"
METHOD = "round-to-nearest:format=Q4_0"
LIMIT_MIB = 2048


def run(
    home: pathlib.Path, source: pathlib.Path, name: str, *, kill_at: int | None = None
) -> tuple[str, float]:
    """Digest and peak MiB; empty and 0 where it is killed as soon as so many units are done."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(home), str(source), name, METHOD], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child, child.stdout as out:
        for line in out:
            what, *values = line.split()
            if what == "unit" and int(values[0]) == kill_at:
                child.send_signal(signal.SIGKILL)
                break
            if what == "made":
                return values[0], int(values[1]) / (1 << 20)
    assert child.returncode == -signal.SIGKILL, "it ended by itself, without a result"
    return "", 0.0


def test_a_model_of_one_and_a_half_billion_is_compressed_within_two_gib_through_kills(
    qwen_large_path: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    whole, peak = run(tmp_path / "one", qwen_large_path, "whole")
    measured("peak resident memory", peak, at_most=LIMIT_MIB, unit="MiB")
    for unit in (0, 1, 9, 10, 28):
        assert run(tmp_path / "two", qwen_large_path, "small", kill_at=unit) == ("", 0.0)
    digest, peak = run(tmp_path / "two", qwen_large_path, "small")
    measured("peak resident memory, taken up again", peak, at_most=LIMIT_MIB, unit="MiB")
    assert digest == whole
