"""`pentad serve` with its engine in a process of its own: killed, wedged, starved, and left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import psutil
import pytest

from native_support import ROW_BY_ROW
from process_support import Server, home_with, serving

MIB = 1 << 20
MODEL = "smollm2-135m"
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals and limits of Linux")


class Up:
    """A server with a worker, and what it says."""

    def __init__(self, server: Server, client: httpx2.Client) -> None:
        self.server = server
        self.client = client

    @property
    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.server.process.pid).children()
        return [c for c in children if c.is_running() and "pentad.application.worker" in c.cmdline()]

    @property
    def worker(self) -> psutil.Process:
        found = self.workers
        assert len(found) == 1, found
        return found[0]

    def body(self, **fields: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Tell me of the sea."}]
        return {
            "model": MODEL,
            "messages": messages,
            "max_tokens": 120,
            "seed": 5,
            "temperature": 0.8,
        } | fields

    def answer(self, **fields: Any) -> str:
        answer = self.client.post("/v1/chat/completions", json=self.body(**fields))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def stream(self, **fields: Any) -> Iterator[dict[str, Any]]:
        body = self.body(stream=True, **fields)
        with self.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))

    def text_with(self, after: int, act: Any, **fields: Any) -> str:
        """The streamed answer; `act` is called once behind so many pieces."""
        text, pieces = "", 0
        for chunk in self.stream(**fields):
            assert "error" not in chunk, chunk
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
            pieces += 1
            if pieces == after:
                act()
        assert pieces > after, "the answer was over before anything happened"
        return text

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))

    def await_metric(self, name: str, value: float, within_s: float = 10.0) -> None:
        """A worker's gauges come with its signs of life, so they may lag a moment behind."""
        until_s = time.monotonic() + within_s
        while (found := self.metric(name)) != value:
            assert time.monotonic() < until_s, f"{name} is {found}, not {value}"
            time.sleep(0.02)

    def ready(self) -> bool:
        return self.client.get("/readyz").status_code == 200

    def await_ready(self, within_s: float = 60.0) -> None:
        until_s = time.monotonic() + within_s
        while not self.ready():
            assert time.monotonic() < until_s, self.client.get("/readyz").text
            time.sleep(0.02)


@contextlib.contextmanager
def up(home: pathlib.Path, *options: str) -> Iterator[Up]:
    arguments = ("--embedding-model", "null", "--threads", "1", "--kv-bytes", "128MiB", *options)
    arguments += ("--kernels", ROW_BY_ROW)
    with serving(home, *arguments) as server, httpx2.Client(base_url=server.url, timeout=120) as client:
        yield Up(server, client)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, smollm2_path: pathlib.Path) -> pathlib.Path:
    return home_with(tmp_path_factory.mktemp("home"), {MODEL: smollm2_path})


@pytest.fixture(scope="module", params=["shared-memory", "tcp"])
def served(request: pytest.FixtureRequest, home: pathlib.Path) -> Iterator[Up]:
    with up(home, "--transport", request.param) as made:
        yield made
        assert made.server.stop() == 0


def gone(process: psutil.Process, within_s: float = 20.0) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.wait(within_s)
    return not process.is_running()


SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "tale",
        "schema": {
            "type": "object",
            "properties": {"tale": {"type": "string"}, "end": {"type": "string"}},
            "required": ["tale", "end"],
        },
    },
}


class TestKilled:
    def test_mid_stream_the_reader_sees_no_break_and_the_server_says_what_it_is(self, served: Up) -> None:
        whole = served.answer()
        restarts, said = served.metric("pentad_engine_worker_restarts_total"), []

        def kill() -> None:
            served.worker.kill()
            until_s = time.monotonic() + 5
            while time.monotonic() < until_s and not said:
                answer = served.client.get("/readyz")
                if answer.status_code == 503:
                    said.append(answer.json()["reason"])
            assert served.client.get("/livez").status_code == 200
            assert served.client.get("/v1/models").status_code == 200

        assert served.text_with(10, kill) == whole
        assert said == [f"model '{MODEL}': the engine's process was killed by SIGKILL; it is started again"]
        served.await_ready()
        assert served.metric("pentad_engine_worker_restarts_total") == restarts + 1
        assert served.answer() == whole

    def test_stop_strings_formats_and_their_state_go_on_too(self, served: Up) -> None:
        stop = served.answer()[60:64]
        asked: list[dict[str, Any]] = [{"stop": [stop]}, {"response_format": SCHEMA, "max_tokens": 60}]
        for fields in asked:
            whole = served.answer(**fields)
            served.await_ready()
            assert served.text_with(4, lambda: served.worker.kill(), **fields) == whole

    def test_under_requests_that_wait_and_run_all_are_answered_as_without(self, served: Up) -> None:
        served.await_ready()
        seeds = range(6)
        with ThreadPoolExecutor(6) as pool:
            before = list(pool.map(lambda seed: served.answer(seed=seed, max_tokens=40), seeds))
            timer = threading.Timer(0.4, served.worker.kill)
            timer.start()
            after = list(pool.map(lambda seed: served.answer(seed=seed, max_tokens=40), seeds))
            timer.join()
        assert after == before
        served.await_ready()
        served.await_metric("pentad_engine_kv_blocks_held", 0)


class TestServed:
    def test_the_gateway_maps_no_weights_and_holds_no_cache(self, served: Up) -> None:
        served.await_ready()
        served.answer(max_tokens=1)
        gateway = psutil.Process(served.server.process.pid)
        mapped = {
            m.path for m in gateway.memory_maps() if m.path.endswith((".gguf", ".packed", ".safetensors"))
        }
        assert not mapped
        packed = [m.path for m in served.worker.memory_maps() if "packed" in m.path]
        assert packed, "the worker maps the packed weights"

    def test_a_client_that_leaves_ends_its_sequence(self, served: Up) -> None:
        served.await_ready()
        stream = served.stream(max_tokens=1500, ignore_eos=True)
        for _ in range(5):
            next(stream)
        served.await_metric("pentad_engine_running", 1)
        stream.close()
        served.await_metric("pentad_engine_running", 0)
        served.await_metric("pentad_engine_kv_blocks_held", 0)

    def test_a_format_that_cannot_be_enforced_is_refused_by_name(self, served: Up) -> None:
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
        answer = served.client.post("/v1/chat/completions", json=served.body(response_format=schema))
        assert answer.status_code == 400
        assert "response_format" in answer.json()["error"]["message"]


@pytest.mark.row("par-dp", "mechanism")
def test_replicas_share_the_requests_and_one_that_dies_takes_no_answer_along(home: pathlib.Path) -> None:
    seeds = range(6)
    with up(home, "--transport", "shared-memory", "--replicas", "2") as served:
        before = [served.answer(seed=seed, max_tokens=40) for seed in seeds]
        both = served.workers
        assert len(both) == 2
        computed = [process.cpu_times().user for process in both]
        timer = threading.Timer(0.4, both[0].kill)
        with ThreadPoolExecutor(len(seeds)) as pool:
            timer.start()
            after = list(pool.map(lambda seed: served.answer(seed=seed, max_tokens=40), seeds))
        timer.join()
        assert after == before
        assert both[1].cpu_times().user > computed[1], "the other one had nothing to do"
        served.await_ready()
        served.await_metric("pentad_engine_kv_blocks_held", 0)
        assert served.server.stop() == 0


def test_a_wedged_worker_is_noticed_and_replaced(home: pathlib.Path) -> None:
    with up(home, "--transport", "shared-memory") as made:
        whole = made.answer()
        wedged = made.worker
        assert made.text_with(10, wedged.suspend) == whole
        assert gone(wedged)
        assert made.worker.pid != wedged.pid
        assert made.server.stop() == 0


def test_a_worker_that_dies_again_and_again_is_held_back(home: pathlib.Path) -> None:
    with up(home, "--transport", "shared-memory") as made:
        for _ in range(5):
            with contextlib.suppress(AssertionError, psutil.NoSuchProcess):
                made.worker.kill()
            until_s = time.monotonic() + 20
            while made.ready() and time.monotonic() < until_s:
                time.sleep(0.01)
            if "started again in 4.0 s" in made.client.get("/readyz").text:
                break
            made.await_ready()
        assert "death 5 in a row: was killed by SIGKILL" in made.client.get("/readyz").text
        answer = made.client.post("/v1/chat/completions", json=made.body())
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 4
        made.await_ready()
        made.answer(max_tokens=1)
        assert made.server.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_server(home: pathlib.Path, how: signal.Signals) -> None:
    with up(home, "--transport", "shared-memory") as made:
        worker = made.worker
        stream = made.stream(max_tokens=1500, ignore_eos=True)
        next(stream)
        made.server.process.send_signal(how)
        with contextlib.suppress(httpx2.HTTPError):
            for _ in stream:
                pass
        made.server.process.wait(60)
        assert gone(worker)


def test_signals_to_the_whole_group_let_the_server_drain(home: pathlib.Path) -> None:
    with up(home, "--transport", "shared-memory") as made:

        def stop_all() -> None:
            for each in (made.worker.pid, made.server.process.pid):
                os.kill(each, signal.SIGTERM)

        made.text_with(10, stop_all, max_tokens=40)
        assert made.server.process.wait(60) == 0


def test_a_worker_short_of_memory_refuses_what_it_cannot_hold_and_lives(home: pathlib.Path) -> None:
    with up(home, "--transport", "shared-memory") as made:
        worker = made.worker
        size = worker.memory_info().vms
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (size + 40 * MIB, resource.RLIM_INFINITY))
        time.sleep(0.6)  # until its next sign of life says so
        refused = made.client.post("/v1/chat/completions", json=made.body())
        assert refused.status_code == 503
        assert "MiB of memory are free" in refused.json()["error"]["message"]
        assert made.client.get("/livez").status_code == 200
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        time.sleep(0.6)
        made.answer(max_tokens=4)
        assert made.worker.pid == worker.pid
        assert made.server.stop() == 0


def test_a_model_that_cannot_be_served_ends_the_start_with_the_reason(home: pathlib.Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"(?s)ended with [1-9].*needs 1 draft model"),
        serving(home, "--embedding-model", "null", "--transport", "shared-memory", "--speculation", "draft"),
    ):
        pass
