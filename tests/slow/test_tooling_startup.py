"""What README and design promise about starting: measured on this machine, which must be idle."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "startup.py", "--repeats", "3"],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    results: dict[str, float] = json.loads(done.stdout.splitlines()[-1])["results"]
    return results


def test_a_server_is_ready_within_5_s(
    figures: dict[str, float], record_property: Callable[[str, object], None]
) -> None:
    record_property("ready_s", figures["ready_s"])
    assert figures["ready_s"] < 5


def test_help_comes_within_300_ms(figures: dict[str, float]) -> None:
    assert figures["help_ms"] < 300


def test_the_readme_tells_the_peak_memory_within_a_tenth(figures: dict[str, float]) -> None:
    row = re.search(r"the default\) \| (\d+) MB", (ROOT / "README.md").read_text("utf-8"))
    assert row is not None
    assert float(row[1]) == pytest.approx(figures["peak_mb"], rel=0.1)
