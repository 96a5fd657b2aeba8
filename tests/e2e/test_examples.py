"""Every example runs as its first lines say."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from process_support import home_with, serving

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, smollm2_path: pathlib.Path, minilm_path: pathlib.Path
) -> pathlib.Path:
    models = {"smollm2-135m": smollm2_path, "minilm": minilm_path}
    return home_with(tmp_path_factory.mktemp("home"), models)


def example(name: str, *arguments: str, home: pathlib.Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PENTAD_HOME": str(home)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_openai_client_streams_and_sees_the_layers(home: pathlib.Path) -> None:
    with serving(home) as server:
        told = example("openai_client.py", f"{server.url}/v1", home=home)
    assert "streamed: " in told
    for layer in ("application", "model", "resource", "execution"):
        assert f"\n{layer}" in told


def test_an_agent_with_functions_answers_with_what_they_return(home: pathlib.Path) -> None:
    told = example("agent_with_functions.py", home=home)
    assert "status: answered" in told
    assert "result: 3 x lamp cost 120 euros" in told
    assert "120" in told.split("answer: ")[1].splitlines()[0]


def test_a_machine_is_planned_and_simulated_before_it_is_bought(home: pathlib.Path) -> None:
    told = example("plan_and_simulate.py", home=home)
    assert "rtx-4090" in told
    assert "p50 time to first token" in told


def test_no_example_goes_untested() -> None:
    named = pathlib.Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in named] == []
