"""`pentad pull hf:...` against a hub on this machine: what arrives is what the hub declares, or nothing."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import model_fixtures as make
from hub_double import REPO, Hub, hub
from pentad.model.store import ModelStore

GGUF = make.f32_gguf(
    [*make.llama_pairs(), *make.tokenizer_pairs()],
    make.tensors(make.llama_gguf_shapes() | {"ballast": (1 << 17,)}),
)
REF = f"hf:{REPO}"
Pull = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub({"tiny.gguf": GGUF, "config.json": b"{}", "evil.py": b"code"}) as running:
        yield running


@pytest.fixture
def pentad(served: Hub, tmp_path: pathlib.Path) -> Pull:
    variables = {k: v for k, v in os.environ.items() if k.upper() not in ("HF_TOKEN", "ALL_PROXY")} | {
        "HF_ENDPOINT": served.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PENTAD_HOME": str(tmp_path / "home"),
    }

    def run(*arguments: str, **over: str) -> subprocess.CompletedProcess[str]:
        command = [str(pathlib.Path(sys.executable).with_name("pentad")), *arguments]
        return subprocess.run(command, env=variables | over, capture_output=True, text=True, timeout=120)

    return run


def blobs(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    """Large files in the hub's cache, partial ones included."""
    return [path for path in (tmp_path / "hf").rglob("blobs/*") if path.stat().st_size > 1000]


def stored(tmp_path: pathlib.Path) -> list[str]:
    return [model.name for model in ModelStore(tmp_path / "home").list()]


def test_a_model_comes_over_redirects_and_is_listed_shown_and_removed(
    served: Hub, pentad: Pull, tmp_path: pathlib.Path
) -> None:
    done = pentad("pull", REF, "--json", HF_TOKEN="secret-token")
    assert done.returncode == 0, done.stderr
    (card,) = json.loads(done.stdout)
    assert pathlib.Path(card["path"]).read_bytes() == GGUF
    assert served.transfers == [(None, None)], "the token stays with the hub, the bytes come once"
    (listed,) = json.loads(pentad("list", "--json").stdout)
    assert listed["ref"] == REF
    assert json.loads(pentad("show", listed["name"], "--json").stdout)["context_tokens"] > 0
    assert pentad("rm", listed["name"]).returncode == 0
    assert stored(tmp_path) == []


def test_a_broken_transfer_goes_on_in_the_next_pull(
    served: Hub, pentad: Pull, tmp_path: pathlib.Path
) -> None:
    served.drop_after = 100_000
    broken = pentad("pull", REF)
    assert broken.returncode == 1
    assert re.search(r"the download broke off \d times .*\nhint: .* \d.\d MB are kept\n", broken.stderr)
    assert stored(tmp_path) == []
    before = len(served.transfers)
    served.drop_after = None
    whole = pentad("pull", REF, "--json")
    assert whole.returncode == 0, whole.stderr
    ((asked, _),) = served.transfers[before:]
    assert asked is not None
    assert int(asked.removeprefix("bytes=").rstrip("-")) >= 65_536
    assert pathlib.Path(json.loads(whole.stdout)[0]["path"]).read_bytes() == GGUF


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (GGUF[: len(GGUF) // 2], f"has {len(GGUF) // 2} bytes instead of {len(GGUF)} and SHA-256"),
        (GGUF[:-1] + bytes([GGUF[-1] ^ 1]), "has SHA-256"),
    ],
    ids=["truncated", "altered"],
)
def test_what_is_not_as_the_hub_declares_is_refused_and_not_kept(
    served: Hub, pentad: Pull, tmp_path: pathlib.Path, sent: bytes, said: str
) -> None:
    served.sent["tiny.gguf"] = sent
    done = pentad("pull", REF)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 2, done.stderr
    assert blobs(tmp_path) == []
    assert stored(tmp_path) == []


def test_an_origin_whose_own_file_is_cut_is_refused(
    served: Hub, pentad: Pull, tmp_path: pathlib.Path
) -> None:
    served.files["tiny.gguf"] = GGUF[: len(GGUF) // 2]
    done = pentad("pull", REF)
    assert done.returncode == 1
    assert f"the file has {len(GGUF) // 2}" in done.stderr
    assert "hint: " in done.stderr
    assert stored(tmp_path) == []


def test_a_gated_model_says_where_to_accept_and_what_to_export(served: Hub, pentad: Pull) -> None:
    served.token = "right"
    for variables in ({}, {"HF_TOKEN": "wrong"}):
        done = pentad("pull", REF, **variables)
        assert done.returncode == 1
        assert "is gated" in done.stderr
        assert f"{served.url}/{REPO}" in done.stderr
        assert "HF_TOKEN" in done.stderr
        assert done.stderr.count("\n") == 2, done.stderr
    assert pentad("pull", REF, HF_TOKEN="right").returncode == 0


def test_a_file_overwritten_in_the_cache_is_noticed_and_mended(pentad: Pull, tmp_path: pathlib.Path) -> None:
    assert pentad("pull", REF).returncode == 0
    (blob,) = blobs(tmp_path)
    times = (blob.stat().st_atime_ns, blob.stat().st_mtime_ns)
    blob.chmod(0o600)
    blob.write_bytes(GGUF[:-1] + bytes([GGUF[-1] ^ 1]))
    os.utime(blob, ns=times)
    done = pentad("pull", REF, "--json")
    assert done.returncode == 0, done.stderr
    assert pathlib.Path(json.loads(done.stdout)[0]["path"]).read_bytes() == GGUF


def test_names_that_the_hub_lacks_are_explained(pentad: Pull) -> None:
    assert "the hub has no 'org/other' for you" in pentad("pull", "hf:org/other").stderr
    assert "model files there: tiny.gguf" in pentad("pull", REF + ":big.gguf").stderr


def test_no_network_is_one_line_and_a_hint_within_seconds(pentad: Pull) -> None:
    began = time.monotonic()
    done = pentad("pull", REF, HF_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the hub cannot be asked for '{REPO}'")
    assert done.stderr.count("\n") == 2, done.stderr
    assert time.monotonic() - began < 60, "it waits for nothing; the bound is for a busy machine"
