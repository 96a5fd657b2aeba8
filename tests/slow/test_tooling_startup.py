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


def test_a_second_start_answers_its_first_request_within_2_s(
    figures: dict[str, float], record_property: Callable[[str, object], None]
) -> None:
    """The packed weights lie in the store: the benchmark starts once before it measures."""
    record_property("first_s", figures["first_s"])
    assert figures["first_s"] < 2


def test_the_server_takes_less_than_450_mb(
    figures: dict[str, float], record_property: Callable[[str, object], None]
) -> None:
    record_property("peak_mb", figures["peak_mb"])
    assert figures["peak_mb"] < 450


def test_the_default_install_downloads_less_than_200_mb(
    tmp_path: pathlib.Path, record_property: Callable[[str, object], None]
) -> None:
    download = ["pip", "download", "-q", "-d", tmp_path, "--require-hashes", "-r", "requirements.lock"]
    done = subprocess.run(
        [sys.executable, "-m", *download],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no package index: {done.stderr.splitlines()[-1]}")
    megabytes = sum(file.stat().st_size for file in tmp_path.iterdir()) / 10**6
    record_property("download_mb", megabytes)
    print(f"\nthe default install downloads {megabytes:.0f} MB")
    assert megabytes < 200
    assert not any(file.name.startswith("torch-") for file in tmp_path.iterdir())


def test_the_readme_tells_the_peak_memory_within_a_tenth(figures: dict[str, float]) -> None:
    row = re.search(r"the default\) \| (\d+) MB", (ROOT / "README.md").read_text("utf-8"))
    assert row is not None
    assert float(row[1]) == pytest.approx(figures["peak_mb"], rel=0.1)
