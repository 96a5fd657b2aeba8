"""Nothing is unpickled by a server, its worker and its ranks while they answer, lose a rank and stop."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import httpx2
import psutil
import pytest

from process_support import home_with, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]
HOOK = pathlib.Path(__file__).parent.parent / "no_pickle"
MODEL = "smollm2-135m"


def armed(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENTAD_NO_PICKLE", str(folder))  # process_support drops what begins so
    monkeypatch.setenv("PYTHONPATH", f"{HOOK}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def test_the_hook_ends_who_unpickles(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    armed(tmp_path, monkeypatch)
    for code in ("pickle.loads(b'N.')", "__import__('_pickle').loads(b'cos\\nsystem\\n.')"):
        done = subprocess.run([sys.executable, "-c", f"import pickle; {code}"], check=False)
        assert done.returncode == 77
    assert len(list(tmp_path.glob("pickle-*"))) == 2


@pytest.mark.parametrize("transport", ["shared-memory", "tcp"])
def test_no_process_of_a_server_unpickles(
    transport: str, tmp_path: pathlib.Path, smollm2_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, folder = home_with(tmp_path / "home", {MODEL: smollm2_path}), tmp_path / "hook"
    folder.mkdir()
    armed(folder, monkeypatch)
    monkeypatch.setattr("process_support.environment", lambda _: os.environ | {"PENTAD_HOME": str(home)})
    options = ("--embedding-model", "null", "--threads", "1", "--kv-bytes", "64MiB", "--parallel", "pp=3")
    options += ("--parallel-transport", transport, "--transport", transport)
    with serving(home, *options) as server, httpx2.Client(base_url=server.url, timeout=120) as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
        for _ in range(2):
            assert client.post("/v1/chat/completions", json=body).status_code == 200
            children = psutil.Process(server.process.pid).children(recursive=True)
            found = [child for child in children if "pentad.execution.ranks.host" in child.cmdline()]
            assert len(found) == 2
            found[0].kill()
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert server.stop() == 0
    lines = [file.read_bytes() for file in folder.glob("armed-*")]
    for part, least in (
        (b"serve", 1),
        (b"pentad.application.worker", 1),
        (b"pentad.execution.ranks.host", 4),
    ):
        assert sum(part in line for line in lines) >= least, f"{part!r} ran without the hook"
    told = [file.read_text() for file in folder.glob("pickle-*")]
    assert not told, told[0]
