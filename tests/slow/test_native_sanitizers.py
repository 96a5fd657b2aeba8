"""The kernels under sanitizers: builds of minutes, so not in CI; scripts/sanitize does all of it."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]


def test_random_batches_are_without_a_report_under_address_and_undefined() -> None:
    done = subprocess.run(
        [str(ROOT / "scripts/sanitize"), "--quick"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was reported" in done.stderr
