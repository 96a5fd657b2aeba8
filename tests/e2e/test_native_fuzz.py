"""Random batches, sound and broken, through the C interface of every kernel library that runs here."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from native_support import HERE
from pentad.execution.native.library import library_path

ROOT = pathlib.Path(__file__).parents[2]
KERNELS = ROOT / "src/pentad/execution/native/kernels"

if shutil.which("g++") is None:
    pytest.skip("no g++ here to build the fuzzer", allow_module_level=True)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    made = tmp_path_factory.mktemp("fuzz") / "fuzz.o"
    flags = ["-std=gnu++20", "-O1", "-Wno-psabi", "-Wno-ignored-attributes", "-I", str(KERNELS)]
    subprocess.run(
        ["g++", *flags, "-c", str(ROOT / "tests/native_fuzz.cpp"), "-o", str(made)], check=True, timeout=300
    )
    return made


@pytest.mark.parametrize("name", HERE)
def test_sound_batches_are_computed_and_broken_ones_refused(fuzzer: pathlib.Path, name: str) -> None:
    program = fuzzer.with_name(f"fuzz-{name}")
    subprocess.run(
        ["g++", str(fuzzer), str(library_path(name)), "-o", str(program), "-lpthread"],
        check=True,
        timeout=120,
    )
    found = subprocess.run([str(program), "1", "25", "12"], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "25 models" in found.stdout
