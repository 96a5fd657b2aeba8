"""The built wheel in an empty environment: hashes checked, no start-up hooks of ours, and the demo runs."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parent.parent.parent
MINUTES_S = 1200


def run(*words: str | pathlib.Path, home: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """A command where nothing is set and the home is empty."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PENTAD_", "XDG_", "PYTHON"))}
    return subprocess.run(
        words,
        env=kept | {"HOME": str(home), "PIP_CONFIG_FILE": os.devnull},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=MINUTES_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run([ROOT / "scripts/build_wheel", folder], capture_output=True, text=True, check=True)
    return pathlib.Path(done.stdout.strip())


def test_the_wheel_holds_no_start_up_hook_and_no_source_of_kernels(wheel: pathlib.Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "pentad/application/cli/app.py" in names
    assert not [name for name in names if name.endswith((".pth", ".cpp", ".h"))]


def test_the_wheel_runs_the_demo_in_an_empty_environment(
    wheel: pathlib.Path, tmp_path: pathlib.Path, record_property: Callable[[str, object], None]
) -> None:
    made = run(sys.executable, "-m", "venv", tmp_path / "env", home=tmp_path)
    assert made.returncode == 0, made.stderr
    pip = [str(tmp_path / "env/bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    locked = run(*pip, "--require-hashes", "--requirement", ROOT / "requirements.lock", home=tmp_path)
    assert locked.returncode == 0, locked.stderr
    # Nothing is left to resolve: the lock holds all that the wheel asks for.
    own = run(*pip, "--no-index", wheel, home=tmp_path)
    assert own.returncode == 0, own.stderr
    told = run(tmp_path / "env/bin/pentad", "demo", home=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "bringing smollm2-135m" in told.stderr
    assert "answer  " in told.stdout
    assert "9716" in told.stdout
    assert "Friday" in told.stdout
    kept = (path for folder in ("env", ".cache/pentad") for path in (tmp_path / folder).rglob("*"))
    megabytes = sum(path.stat().st_size for path in kept if path.is_file() and not path.is_symlink()) / 10**6
    record_property("installed_mb", megabytes)
    assert megabytes < 1000, "README asks for 1 GB of disk"
    hooks = {path.name for path in (tmp_path / "env").rglob("*.pth")}
    assert hooks <= {"distutils-precedence.pth"}


def test_the_lock_refuses_a_file_of_another_hash(tmp_path: pathlib.Path) -> None:
    pin = re.search(r"^idna==\S+", (ROOT / "requirements.lock").read_text("utf-8"), re.M)
    assert pin is not None
    (tmp_path / "lock").write_text(f"{pin[0]} --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", tmp_path]
    done = run(*download, "-r", tmp_path / "lock", home=tmp_path)
    assert done.returncode != 0
    assert "HASH" in done.stderr.upper()
