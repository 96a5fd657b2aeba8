"""The tool `remote` and `pentad agent jobs`: work in another process, once per call, while others go on."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
import pytest

from agent_support import call, context, harness, run, spec
from evidence.plugin import Measure
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.base import Tool, ToolServices
from pentad.agent.tools.builtin import remote
from pentad.agent.tools.invocation import call as invoke
from pentad.errors import InvalidRequest
from pentad.testing.agents import scripted_models

SERVICES = ToolServices(models=scripted_models([])[0])
FUNCTIONS = pathlib.Path(__file__).parent / "job_functions.py"


@contextmanager
def server(folder: pathlib.Path, key: str = "") -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A job server in a process of its own: its URL and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = [f"{FUNCTIONS}:{name}" for name in ("burn", "note", "hang", "refuse")]
    command = [str(pathlib.Path(sys.executable).with_name("pentad")), "agent", "jobs", *names]
    command += ["--folder", str(folder), "--port", str(port)]
    environment = {**os.environ, "JOBS_KEY": key}
    process = subprocess.Popen([*command, *(["--key-env", "JOBS_KEY"] if key else [])], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            try:
                httpx2.get(f"{url}/jobs/none-such-job")
                break
            except httpx2.HTTPError:
                assert process.poll() is None, "the job server ended"
                time.sleep(0.05)
        yield url, process
    finally:
        process.terminate()
        process.wait(20)


def tool_at(url: str, name: str, **options: object) -> Tool:
    parameters = {
        "burn": {"cpu_s": {"type": "number"}},
        "note": {"file": {"type": "string"}, "line": {"type": "string"}},
        "hang": {"file": {"type": "string"}},
        "refuse": {"why": {"type": "string"}},
    }[name]
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    made = {"name": name, "parameters": schema, "poll_s": 0.05, **options}
    return remote.build(SERVICES, url=url, **made)  # type: ignore[arg-type]


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@pytest.mark.row("tool-remote-compute", "effect", claims=(1, 2))
def test_other_turns_are_served_while_a_job_computes_elsewhere_and_our_cpu_rests(
    tmp_path: pathlib.Path, measured: Measure
) -> None:
    burn_s = 6.0

    async def scenario(url: str) -> None:
        tools = [tool_at(url, "burn", poll_s=0.2)]
        turns = [[call("burn", cpu_s=burn_s)], *[["A quick answer."]] * 5, ["It is computed."]]
        async with harness(tmp_path, turns, tools) as h:
            began_s, used_s = time.monotonic(), cpu_s()
            heavy = await h.runtime.start(spec(tools=("burn",)), "compute it")
            await begun(lambda: any(r.kind == "tool_intended" for r in h.records(heavy)))
            answered = 0
            for _ in range(5):
                state = await h.work(spec(), "something else")
                waits = not any(r.kind == "tool_returned" for r in h.records(heavy))
                answered += state.status == "answered" and waits
            state = await h.runtime.wait(heavy)
            here_s, took_s = cpu_s() - used_s, time.monotonic() - began_s
            assert state.status == "answered", state.error
            (result,) = [r.event for r in h.records(heavy) if isinstance(r.event, ToolReturned)]
            assert result.content.startswith(f"burned {burn_s:g} s in process ")
            assert not result.content.endswith(f" {os.getpid()}")
            assert result.source.startswith("job_")
            assert took_s >= burn_s
            measured("other turns answered meanwhile, of 5", answered, at_least=5)
            measured("CPU time here, of what the job takes", here_s / burn_s, at_most=0.20)

    with server(tmp_path / "jobs") as (url, _):
        run(scenario(url), 90)


@pytest.mark.row("tool-remote-compute", "mechanism", claims=(1,))
def test_a_call_that_is_made_again_waits_for_the_job_that_is_there(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "notes"

    async def scenario(url: str) -> None:
        made = tool_at(url, "note")
        arguments = {"file": str(file), "line": "once"}
        found = [await invoke(made, arguments, context(key="run:1:0")) for _ in range(3)]
        assert {(each.status, each.content) for each in found} == {("ok", "noted once")}
        assert file.read_text("utf-8") == "once\n"
        assert (await invoke(made, arguments, context(key="run:2:0"))).status == "ok"
        assert file.read_text("utf-8") == "once\nonce\n"
        failed = await invoke(tool_at(url, "refuse"), {"why": "too\nbig"}, context(key="run:3:0"))
        assert (failed.status, failed.content) == ("failed", "the job failed: ToolFailed: too big")
        unknown = await invoke(tool_at(url, "note", job="nothing"), arguments, context(key="run:4:0"))
        assert unknown.status == "failed"
        assert "no job 'nothing'; known: burn, note, hang, refuse" in unknown.content

    with server(tmp_path / "jobs") as (url, _):
        run(scenario(url), 60)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


async def begun(so: Callable[[], bool]) -> None:
    for _ in range(1500):
        if so():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not begin within 30 s")


async def number_in(file: pathlib.Path) -> int:
    await begun(lambda: file.exists() and bool(file.read_text()))
    return int(file.read_bytes())  # noqa: ASYNC240


@pytest.mark.row("tool-remote-compute", "mechanism", claims=(1,))
def test_a_cancelled_call_ends_the_job_and_a_dead_server_leaves_it_in_doubt(tmp_path: pathlib.Path) -> None:
    async def scenario(url: str, process: subprocess.Popen[bytes]) -> None:
        file = tmp_path / "began"
        under_way = asyncio.create_task(invoke(tool_at(url, "hang"), {"file": str(file)}, context(key="a")))
        pid = await number_in(file)
        assert alive(pid)
        under_way.cancel()
        await asyncio.wait([under_way])
        assert not alive(pid), "the job's process has ended when the call has"
        late = tool_at(url, "hang", timeout_s=1.0)
        outcome = await invoke(late, {"file": str(tmp_path / "late")}, context(key="b"))
        assert outcome.status == "unknown"
        assert outcome.limit == "timeout_s 1"
        lost = tool_at(url, "hang", lost_s=0.3)
        again = tmp_path / "again"
        under_way = asyncio.create_task(invoke(lost, {"file": str(again)}, context(key="c")))
        orphan = await number_in(again)
        process.kill()
        process.wait()
        await begun(lambda: not alive(orphan))
        outcome = await under_way
        assert outcome.status == "unknown"
        assert "out of reach" in outcome.content

    folder = tmp_path / "jobs"
    with server(folder) as (url, process):
        run(scenario(url, process), 60)
    with server(folder) as (url, _):
        found = [httpx2.get(f"{url}/jobs/{file.stem}").json() for file in folder.glob("*.json")]
        ended = sorted((job["status"], job.get("error", "")) for job in found)
        assert ended == [
            ("cancelled", ""),
            ("cancelled", ""),
            ("failed", "the job server died while it ran"),
        ]


def test_a_server_with_a_key_refuses_who_has_it_not(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(url: str) -> None:
        arguments = {"file": str(tmp_path / "notes"), "line": "x"}
        outcome = await invoke(tool_at(url, "note"), arguments, context())
        assert outcome.status == "failed"
        assert "refuses (401)" in outcome.content
        monkeypatch.setenv("MY_KEY", "s3cret")
        outcome = await invoke(tool_at(url, "note", key_env="MY_KEY"), arguments, context(key="k"))
        assert outcome.status == "ok"
        assert "s3cret" not in json.dumps([outcome.content, outcome.source])

    with server(tmp_path / "jobs", key="s3cret") as (url, _):
        run(scenario(url), 60)
    with pytest.raises(InvalidRequest, match=r"tool_options\.remote\.url"):
        remote.build(SERVICES)
    with pytest.raises(InvalidRequest, match="'NO_SUCH_KEY' is not set"):
        remote.build(SERVICES, url="http://x", key_env="NO_SUCH_KEY")
