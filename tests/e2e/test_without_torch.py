"""The default install: everything that a person meets first works where PyTorch is not installed."""

from __future__ import annotations

import ast
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from process_support import environment, home_with

ROOT = pathlib.Path(__file__).parent.parent.parent
HIDE = "import sys; sys.modules['torch'] = None\n"
"""Python then finds no torch, as where it is not installed."""


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, smollm2_path: pathlib.Path, minilm_path: pathlib.Path
) -> pathlib.Path:
    models = {"smollm2-135m": smollm2_path, "minilm": minilm_path}
    return home_with(tmp_path_factory.mktemp("home"), models)


def pentad(home: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program in a Python that has no torch."""
    program = f"{HIDE}from pentad.application.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_the_demo_agent_answers(home: pathlib.Path) -> None:
    goal = "What is 347 times 28, and which weekday is 2026-12-25?"
    done = pentad(home, "agent", "run", "demo", goal)
    assert done.returncode == 0, done.stderr
    assert "9716" in done.stdout
    assert "Friday" in done.stdout


def test_texts_are_embedded_and_doctor_finds_no_trouble(home: pathlib.Path) -> None:
    program = (
        f"{HIDE}from pentad.model.embedding import LocalEmbedder\nfrom pentad.model.store import ModelStore\n"
        "vectors = LocalEmbedder.open(ModelStore().resolve('minilm').path).embed(['a cat', 'a kitten'])\n"
        "print(sum(a * b for a, b in zip(*vectors)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(home), capture_output=True, text=True, check=True
    )
    assert 0.5 < float(done.stdout) < 1
    findings = {f["what"]: f for f in json.loads(pentad(home, "doctor", "--json").stdout)}
    assert findings["extra torch"]["state"] == "absent"
    assert findings["runs smollm2-135m"]["state"] == "ok"
    assert findings["runs minilm"]["state"] == "ok"
    assert not any(f["state"] == "trouble" for f in findings.values()), findings


def test_the_machine_is_measured_planned_for_and_simulated(home: pathlib.Path) -> None:
    measured = pentad(home, "profile", "--quick", "--json")
    assert measured.returncode == 0, measured.stderr
    device = json.loads(measured.stdout)
    assert device["kernels"] not in (None, "torch")
    assert device["gemm_points"]
    plan = pentad(home, "plan", "smollm2-135m", "--json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["inter_token_s"] > 0
    report = pentad(home, "simulate", "poisson", "--limit", "5", "--json")
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["completed"] == 5


def test_a_model_that_needs_pytorch_says_how_to_get_it(home: pathlib.Path) -> None:
    done = pentad(home, "run", "smollm2-135m", "hello", "--kernels", "torch")
    assert done.returncode != 0
    assert "needs PyTorch here" in done.stderr
    assert "pip install 'pentad[torch]'" in done.stderr


def imported(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes of a module that run: what only a type checker reads is left out."""
    for node in tree.body:
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from ast.walk(node)


def test_only_the_pytorch_kernels_import_torch() -> None:
    source = ROOT / "src" / "pentad"
    importers = set()
    for path in source.rglob("*.py"):
        for node in imported(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "torch" for name in names):
                importers.add(path.relative_to(source).parts[:2])
    assert importers == {("execution", "torch")}
