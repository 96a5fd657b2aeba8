"""Shared fixtures: real models, the network guard and the record of coverage rows."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import socket
import subprocess
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parent.parent
OFFLINE_FOLDERS = ("unit", "property")
"""Tests in these folders may not open a connection, not even to loopback."""
STORE_MODELS = ("smollm2-135m", "minilm")
"""Test models that `pentad pull` brings."""


def model_file(name: str) -> pathlib.Path:
    """The path of a test model, skipping aloud when it is not on the machine.

    Models of the catalogue come from the product's own store, the others from
    scripts/fetch_test_models.
    """
    root = pathlib.Path(os.environ.get("PENTAD_TEST_MODELS") or "~/.cache/pentad-test-models").expanduser()
    path = root / (name if name == "minilm" else f"{name}.gguf")
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


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = pathlib.Path(str(request.node.path)).relative_to(ROOT / "tests").parts
    if parts[0] in OFFLINE_FOLDERS:

        def refuse(self: socket.socket, address: Any) -> None:
            if self.family != socket.AF_UNIX:
                raise AssertionError(f"a {parts[0]} test opened a connection to {address!r}")

        monkeypatch.setattr(socket.socket, "connect", refuse)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows-file", help="write the outcome of every test that is marked with a coverage row")


class _Rows:
    """Collects row, kind, test and outcome; the worst phase of a test counts.

    Tests that did not run are left out, unless nothing was to run (--collect-only).
    """

    def __init__(self, target: pathlib.Path, *, collect_only: bool) -> None:
        self.target = target
        self.collect_only = collect_only
        self.values: dict[str, dict[str, object]] = {}
        self.marks: dict[str, list[tuple[str, str]]] = {}
        self.slow: set[str] = set()
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("row"):
                row, kind = mark.args[0], mark.args[1] if len(mark.args) > 1 else mark.kwargs["kind"]
                self.marks.setdefault(item.nodeid, []).append((row, kind))
            if item.get_closest_marker("slow"):
                self.slow.add(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        decides = report.when == "call" or report.outcome != "passed"
        if report.nodeid in self.marks and decides and self.outcomes.get(report.nodeid) != "failed":
            self.outcomes[report.nodeid] = report.outcome
            self.values[report.nodeid] = dict(report.user_properties)

    def pytest_sessionfinish(self) -> None:
        git = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        commit, machine = git.stdout.strip(), f"{platform.machine()} {os.cpu_count()} cores"
        lines = [
            {
                "row": row,
                "kind": kind,
                "test": test,
                "outcome": self.outcomes.get(test, "not run"),
                "slow": test in self.slow,
                "commit": commit,
                "machine": machine,
                "value": self.values.get(test, {}),
            }
            for test, marks in sorted(self.marks.items())
            for row, kind in marks
            if self.collect_only or test in self.outcomes
        ]
        self.target.write_text("".join(json.dumps(line) + "\n" for line in lines))


def pytest_configure(config: pytest.Config) -> None:
    target = config.getoption("--rows-file")
    if target:
        collect_only = bool(config.getoption("--collect-only"))
        config.pluginmanager.register(_Rows(pathlib.Path(target), collect_only=collect_only))
