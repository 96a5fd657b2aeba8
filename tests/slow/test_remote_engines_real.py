"""Engines of others, themselves: NVIDIA Triton, and LangChain against our server. See scripts/peers."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from evidence.plugin import Measure
from gateway_support import scripted
from pentad.execution.backend import collect
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.engines import ENGINES
from pentad.model.backends.openai import OpenAIBackend
from pentad.model.backends.wires.triton import TritonWire
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.model.standby import Standby
from pentad.testing.backends import ScriptedBackend
from pentad.types import Request, ToolCall

pytestmark = pytest.mark.slow
TESTS = pathlib.Path(__file__).parents[1]
START_S = 240.0


def peer(name: str) -> pathlib.Path:
    """The Python of an environment that scripts/peers makes."""
    home = pathlib.Path(os.environ.get("PENTAD_PEERS", pathlib.Path.home() / ".cache" / "pentad-peers"))
    python = home / name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no {name}: run scripts/peers {name}")
    return python


@dataclass(frozen=True)
class Triton:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def server(self) -> int:
        """Process id of tritonserver itself."""
        found = subprocess.run(
            ["pgrep", "-f", f"tritonserver .*http-port.{self.port}"],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(found.stdout.split()[0])

    def backend(self, model: str, **change: object) -> OpenAIBackend:
        endpoint = Endpoint(
            base_url=self.url,
            model=model,
            engine=ENGINES["triton"],
            chat_template="chatml",
            **change,  # type: ignore[arg-type]
        )
        return OpenAIBackend(endpoint, name="far", wire=TritonWire(endpoint))


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/models/plain/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def triton() -> Iterator[Triton]:
    python = peer("triton")
    said = [str(python), "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"]
    # Its Python backend loads the interpreter's library by name.
    libraries = subprocess.run(said, capture_output=True, text=True, check=True).stdout.strip()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [str(python), str(TESTS / "triton_models.py"), str(port)],
        env={**os.environ, "LD_LIBRARY_PATH": libraries},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end_s = time.monotonic() + START_S
        while not ready(f"http://127.0.0.1:{port}"):
            assert process.poll() is None, "Triton ended while it started"
            assert time.monotonic() < end_s, "Triton did not start"
            time.sleep(0.5)
        yield Triton(port, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.row("par-triton", "effect", claims=(2, 3))
def test_triton_itself_answers_and_a_standby_does_when_it_stops(triton: Triton, measured: Measure) -> None:
    async def scenario() -> tuple[float, float]:
        metrics = f"http://127.0.0.1:{triton.port + 2}/metrics"
        far, other = triton.backend("echo", metrics_url=metrics), triton.backend("plain")
        for backend in (far, other):
            got = await collect(backend.stream(Request(id="r", model="far", text="hi")))
            assert got.message.content == "you said: hi"
        await other.close()
        await asyncio.sleep(1)
        assert far.stats()["server_nv_inference_request_success"] >= 0
        models = ModelService(
            {"far": far, "near": ScriptedBackend([["near"]] * 2, model="near")},
            router=Fixed(),
            standbys={"far": Standby(model="near", after_s=1.0, again_s=0.0)},
        )
        server, took = triton.server, []
        # First it hangs, then it is gone.
        for how in (signal.SIGSTOP, signal.SIGKILL):
            os.kill(server, how)
            began_s = time.monotonic()
            got = await models.complete(Request(id="r", model="far", text="hi"))
            took.append(time.monotonic() - began_s)
            assert got.message.content == "near"
        await models.close()
        return took[0], took[1]

    hung_s, gone_s = asyncio.run(scenario())
    measured("failover from a server that hangs", hung_s, at_most=2.0, unit="s")
    measured("failover from one that is gone", gone_s, at_most=2.0, unit="s")


@pytest.mark.row("fw-langchain", "mechanism", claims=(1,))
def test_a_chain_of_langchain_streams_and_calls_tools_on_our_server() -> None:
    python = peer("langchain")
    turns = (
        ["Hel", "lo ", "there"],
        [ToolCall(id="call_1", name="add", arguments='{"a": 1, "b": 2}')],
        ["It is ", "3."],
    )
    with scripted(*turns) as server:
        program = TESTS / "real_clients" / "programs" / "langchain_chain.py"
        ran = subprocess.run(
            [str(python), str(program), server.url], capture_output=True, text=True, timeout=180, check=False
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        asked = server.backend.requests if server.backend else []
    said = json.loads(ran.stdout)
    assert said["pieces"] == ["Hel", "lo ", "there"]
    assert said["calls"] == [{"name": "add", "args": {"a": 1, "b": 2}}]
    assert said["results"] == ["3"]
    assert said["answer"] == "It is 3."
    assert said["tokens"] > 0
    assert [tool.name for tool in asked[1].tools] == ["add"]
    assert (asked[2].messages or ())[-1].content == "3"
