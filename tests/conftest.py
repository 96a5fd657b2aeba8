"""Shared fixtures: real models and the network guard. `evidence.plugin` records coverage rows."""

from __future__ import annotations

import os
import pathlib
import socket
from typing import Any

import hypothesis
import pytest

# A loaded machine is no fault of the code: no test is held to a time per example.
hypothesis.settings.register_profile("pentad", deadline=None)
hypothesis.settings.load_profile("pentad")

pytest_plugins = ["evidence.plugin"]
ROOT = pathlib.Path(__file__).parent.parent
OFFLINE_FOLDERS = ("unit", "property")
"""Tests in these folders may not open a connection, not even to loopback."""
STORE_MODELS = ("smollm2-135m", "minilm")
"""Test models that `pentad pull` brings."""
FOLDERS = ("minilm", "flan-t5-small", "marian-enpt", "whisper-base")
"""Test models of several files."""


def model_file(name: str) -> pathlib.Path:
    """The path of a test model, skipping aloud when it is not on the machine.

    Models of the catalogue come from the product's own store, the others from
    scripts/fetch_test_models.
    """
    root = pathlib.Path(os.environ.get("PENTAD_TEST_MODELS") or "~/.cache/pentad-test-models").expanduser()
    path = root / (name if name in FOLDERS else f"{name}.gguf")
    if path.exists():
        return path
    if name not in STORE_MODELS:
        pytest.skip(f"test model {name!r} is not in {root}; run scripts/fetch_test_models {name}")
    from pentad.errors import PentadError
    from pentad.model.store import ModelStore

    try:
        return pathlib.Path(ModelStore().resolve(name).path)
    except PentadError as e:
        pytest.skip(f"test model {name!r} is not in the store ({e}); run pentad pull {name}")


@pytest.fixture(scope="session")
def smollm2_path() -> pathlib.Path:
    return model_file("smollm2-135m")


@pytest.fixture(scope="session")
def qwen_path() -> pathlib.Path:
    return model_file("qwen-0.5b")


@pytest.fixture(scope="session")
def qwen_large_path() -> pathlib.Path:
    return model_file("qwen-1.5b")


@pytest.fixture(scope="session")
def minilm_path() -> pathlib.Path:
    return model_file("minilm")


@pytest.fixture(scope="session")
def flan_graphs() -> pathlib.Path:
    return model_file("flan-t5-small")


@pytest.fixture(scope="session")
def marian_path() -> pathlib.Path:
    return model_file("marian-enpt")


@pytest.fixture(scope="session")
def whisper_path() -> pathlib.Path:
    return model_file("whisper-base")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = pathlib.Path(str(request.node.path)).relative_to(ROOT / "tests").parts
    if parts[0] in OFFLINE_FOLDERS:

        def refuse(self: socket.socket, address: Any) -> None:
            if self.family != socket.AF_UNIX:
                raise AssertionError(f"a {parts[0]} test opened a connection to {address!r}")

        monkeypatch.setattr(socket.socket, "connect", refuse)
