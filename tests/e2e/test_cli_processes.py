"""The program as people start it: how fast, how it ends, what a running server answers."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import httpx2
import pytest

from process_support import PENTAD, Server, environment, home_with, pentad, serving, started

HELP_MS = 300


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, smollm2_path: pathlib.Path, minilm_path: pathlib.Path
) -> pathlib.Path:
    models = {"smollm2-135m": smollm2_path, "minilm": minilm_path}
    return home_with(tmp_path_factory.mktemp("home"), models)


@pytest.fixture(scope="module")
def server(home: pathlib.Path) -> Iterator[Server]:
    with serving(home) as running:
        yield running


def test_help_takes_less_than_300_ms(tmp_path: pathlib.Path) -> None:
    """Of processor time, the least of five, so that other work on the machine does not count."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert pentad(tmp_path, "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)

    assert min(once() for _ in range(5)) < HELP_MS


def test_serve_lists_the_default_model_first(server: Server) -> None:
    models = httpx2.get(f"{server.url}/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["smollm2-135m", "minilm"]


def test_serve_says_that_the_default_model_is_a_toy_and_what_to_pull(server: Server) -> None:
    assert "smollm2-135m is a toy to try things with; `pentad pull qwen2.5-1.5b` brings" in server.said


def test_ps_tells_what_a_server_does(server: Server, home: pathlib.Path) -> None:
    state = json.loads(pentad(home, "ps", "--url", server.url, "--json").stdout)
    assert state["models"][0]["name"] == "smollm2-135m"
    assert state["models"][0]["stats"]["running"] == 0
    assert "smollm2-135m" in pentad(home, "ps", "--url", server.url).stdout


def test_ps_without_a_server_says_how_to_start_one(home: pathlib.Path) -> None:
    outcome = pentad(home, "ps", "--url", "http://127.0.0.1:9")
    assert outcome.returncode == 1
    assert outcome.stderr.splitlines()[0].startswith("error: no server answers at 'http://127.0.0.1:9'")
    assert outcome.stderr.splitlines()[1].startswith("hint: start it with pentad serve")


def test_a_taken_port_is_refused_before_any_model_is_loaded(server: Server, home: pathlib.Path) -> None:
    port = server.url.rpartition(":")[2]
    began = time.monotonic()
    outcome = pentad(home, "serve", "--port", port)
    assert outcome.returncode == 1
    assert outcome.stderr.splitlines()[0] == f"error: port {port} of 127.0.0.1 is taken"
    assert "pentad.execution" not in outcome.stderr
    assert time.monotonic() - began < 30


def test_run_answers_with_the_real_model(home: pathlib.Path) -> None:
    outcome = pentad(home, "run", "smollm2-135m", "Say hello.", "--max-tokens", "8", "--json")
    answer = json.loads(outcome.stdout)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert answer["text"]
    assert 0 < answer["usage"]["completion_tokens"] <= 8


def test_ctrl_c_ends_an_answer_without_a_traceback(home: pathlib.Path) -> None:
    words = ("Tell a very long story.", "--max-tokens", "4000", "--temperature", "0")
    process = started(home, "run", "smollm2-135m", *words)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_ctrl_c_leaves_a_run_that_resume_ends(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    agent = tmp_path / "teller.yaml"
    agent.write_text("name: teller\nplanner: {name: react, max_plan: 0}\nmax_tokens: 96\n", encoding="utf-8")
    process = started(home, "agent", "run", str(agent), "Tell me about the sea.")
    assert process.stdout is not None
    run = process.stdout.readline().split()[1]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"pentad runs resume {run}" in errors
    assert "Traceback" not in errors
    listed = {row["id"]: row["status"] for row in json.loads(pentad(home, "runs", "list", "--json").stdout)}
    assert listed[run] == "running"
    resumed = pentad(home, "runs", "resume", run)
    assert "resumed" in resumed.stdout
    shown = json.loads(pentad(home, "runs", "show", run, "--json").stdout)
    assert (shown["status"] == "answered") == (resumed.returncode == 0)
    assert shown["status"] != "running"


def test_cancel_reaches_a_run_through_its_server(server: Server, home: pathlib.Path) -> None:
    agent = {"name": "teller", "planner": {"name": "react", "max_plan": 0}, "max_tokens": 4000}
    body = {"agent": agent, "goal": "Tell a very long story, and never end it."}
    run = httpx2.post(f"{server.url}/v1/runs", json=body).json()["id"]
    outcome = pentad(home, "runs", "cancel", run, "--url", server.url)
    assert (outcome.returncode, outcome.stdout) == (0, f"{run} cancelled\n")
    assert json.loads(pentad(home, "runs", "show", run, "--json").stdout)["status"] == "cancelled"


def test_a_server_is_ready_once_it_has_said_where_it_listens(home: pathlib.Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = started(home, "serve", "--port", str(port), "--embedding-model", "null")
    assert process.stderr is not None
    try:
        deadline, status = time.monotonic() + 120, 0
        while status != 200:
            assert time.monotonic() < deadline, "it never became ready"
            with contextlib.suppress(httpx2.TransportError):
                status = httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=60).status_code
        os.set_blocking(process.stderr.fileno(), False)
        assert f"http://127.0.0.1:{port}/v1".encode() in os.read(process.stderr.fileno(), 65_536)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_sigterm_ends_the_server_with_status_0(home: pathlib.Path) -> None:
    with serving(home, "--embedding-model", "null") as running:
        assert running.stop() == 0


def test_a_hub_out_of_reach_is_said_at_once_in_two_lines(tmp_path: pathlib.Path) -> None:
    env = environment(tmp_path) | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    words = [PENTAD, "pull", "hf:org/name"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("error: the hub cannot be asked for 'org/name'")
    assert second.startswith("hint: ")
