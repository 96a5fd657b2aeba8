"""Traces at a real collector: requests, runs with tools and sub-agents, a killed process, and its absence."""

from __future__ import annotations

import importlib.util
import json
import logging
import pathlib
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx2 as httpx
import pytest

from agent_support import call, harness, run, spec
from cli_support import Pentad
from gateway_support import HELLO, HashEmbedder, Live, eventually, live, model_service
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec, McpServer
from pentad.agent.tools.base import Toolbox
from pentad.agent.tools.functions import tool
from pentad.application.config import TelemetrySettings
from pentad.application.services import Services
from pentad.application.telemetry.telemetry import Telemetry, telemetry_of
from pentad.errors import InvalidRequest, MissingExtra
from pentad.execution.backend import Backend, Delta
from pentad.model.backends.endpoint import Endpoint
from pentad.model.backends.openai import OpenAIBackend
from pentad.testing.backends import ScriptedBackend
from pentad.tracing.context import outgoing
from pentad.types import Request, Usage
from trace_support import FIRST, TOOLS, Collector, leading, script

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
CHAT = {"messages": HELLO, "max_tokens": 9}


post, get = partial(httpx.post, timeout=30.0), partial(httpx.get, timeout=30.0)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def exporting(url: str, **fields: Any) -> Telemetry:
    made = telemetry_of(
        TelemetrySettings(traces="otlp", otlp_endpoint=url, **fields), clock=time.monotonic, env={}
    )
    assert made is not None
    return made


@contextmanager
def serving(
    url: str,
    backend: Backend,
    folder: pathlib.Path | None = None,
    *,
    agents: Mapping[str, AgentSpec] | None = None,
    **fields: Any,
) -> Iterator[Live]:
    """A gateway that exports traces, with agents where there is a folder for their journal."""
    telemetry = exporting(url, **fields)
    models = model_service(backend, embedders={"vectors": HashEmbedder()})
    if folder is None:
        with live(Services(models=models, telemetry=telemetry)) as server:
            yield server
            telemetry.flush()
    else:
        journal = Journal(folder / "journal.db")
        with telemetry.following(journal):
            runtime = AgentRuntime(
                models,
                journal,
                agents=agents or {"lead": leading()},
                toolbox=Toolbox(TOOLS),
                tracing=telemetry.tracing,
            )
            with live(Services(models=models, agents=runtime, telemetry=telemetry)) as server:
                yield server
                telemetry.flush()
            run(runtime.close())
    telemetry.close()


class BriefBackend(OpenAIBackend):
    """Closes its connection after each answer, in the loop that it was made in."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        async for delta in super().stream(request):
            yield delta
        await self.close()


def test_a_chat_is_a_span_of_its_callers_trace_and_a_remote_models_server_goes_on_with_it(
    collector: Collector,
) -> None:
    used = Usage(prompt_tokens=12, completion_tokens=3, cached_tokens=8)
    with serving(collector.url, ScriptedBackend([["Hi", " there", used]]), service_name="far") as far:
        remote = BriefBackend(
            Endpoint(base_url=f"{far.url}/v1", model="scripted", remote=False), name="scripted"
        )
        with serving(collector.url, remote, service_name="near", otlp_headers={"x-key": "k"}) as near:
            answer = post(f"{near.url}/v1/chat/completions", json=CHAT, headers=CALLER)
            assert answer.json()["choices"][0]["message"]["content"] == "Hi there"
            counts = get(f"{near.url}/metrics").text
    ours, theirs = (next(s for s in collector.spans if s.service == name) for name in ("near", "far"))
    assert (ours.trace_id, ours.parent_id, ours.kind) == (TRACE, "b7ad6b7169203331", "server")
    assert (theirs.trace_id, theirs.parent_id) == (TRACE, ours.span_id)
    assert any(each.get("x-key") == "k" for each in collector.headers)
    assert 'pentad_telemetry_spans_total{outcome="dropped"} 0.0' in counts
    for span in (ours, theirs):
        assert span.name == "chat scripted"
        told = span.attributes
        assert told["gen_ai.operation.name"] == "chat"
        assert told["gen_ai.request.max_tokens"] == 9
        assert told["gen_ai.response.finish_reasons"] == ["stop"]
        assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (12, 3)
        assert told["gen_ai.usage.cache_read.input_tokens"] == 8
        assert told["gen_ai.response.time_to_first_chunk"] > 0
        assert "pentad.decision" in span.events
        assert "hello" not in repr(span).lower()


def test_content_embeddings_errors_and_what_a_caller_does_not_record(collector: Collector) -> None:
    backend = ScriptedBackend([["Hi"], ["Hi"], refusing, ["Hi"]])
    with serving(collector.url, backend, trace_content=True) as server:
        chat = f"{server.url}/v1/chat/completions"
        post(chat, json=CHAT)
        post(chat, json={**CHAT, "pentad": {"data_label": "secret"}})
        post(chat, json=CHAT)
        post(chat, json=CHAT, headers={"traceparent": CALLER["traceparent"][:-1] + "0"})
        sent = {"model": "vectors", "input": ["a b", "c"]}
        assert post(f"{server.url}/v1/embeddings", json=sent, headers=CALLER).status_code == 200
    first, labelled, failed, embedded = collector.spans
    asked = json.loads(first.attributes["gen_ai.input.messages"])
    assert asked == [{"role": "user", "parts": [{"type": "text", "content": "Say hello"}]}]
    assert "Hi" in first.attributes["gen_ai.output.messages"]
    assert "gen_ai.input.messages" not in labelled.attributes
    assert (failed.error, failed.attributes["error.type"]) == ("the prompt is odd", "InvalidRequest")
    assert (embedded.name, embedded.trace_id) == ("embeddings vectors", TRACE)
    assert embedded.attributes["gen_ai.usage.input_tokens"] == 3
    assert embedded.attributes["gen_ai.embeddings.dimension.count"] == 4


def refusing(_: Any) -> list[Any]:
    return [InvalidRequest("the prompt is odd")]


def test_a_run_with_a_tool_and_a_sub_agent_is_one_tree_below_its_caller(
    collector: Collector, tmp_path: pathlib.Path
) -> None:
    with serving(collector.url, script(), tmp_path) as server:
        begun = post(
            f"{server.url}/v1/runs", json={"agent": "lead", "goal": "find it"}, headers=CALLER
        ).json()
        shown = f"{server.url}/v1/runs/{begun['id']}"
        eventually(lambda: get(shown).json()["status"] == "answered")
    lead, ann = collector.named("invoke_agent lead"), collector.named("invoke_agent ann")
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert lead.parent_id == "b7ad6b7169203331"
    assert collector.named("execute_tool search").parent_id == lead.span_id
    assert ann.parent_id == collector.named("execute_tool delegate").span_id
    assert ann.attributes["gen_ai.conversation.id"] == lead.attributes["pentad.run.id"] == begun["id"]
    chats = [span for span in collector.spans if span.name == "chat scripted"]
    assert sorted(span.parent_id for span in chats) == sorted([lead.span_id] * 3 + [ann.span_id])
    assert next(s.attributes["gen_ai.usage.input_tokens"] for s in chats) == FIRST.prompt_tokens
    assert len(collector.spans) == 8


def test_agents_elsewhere_over_mcp_and_a2a_go_on_in_the_same_trace(
    collector: Collector, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    far = {"helper": spec(name="helper", description="Helps.")}
    calls = [call("elsewhere__helper", "c1", goal="one"), call("ask_agent", "c2", task="two")]
    near = ScriptedBackend([[calls[0]], [calls[1]], ["all"]])
    with serving(
        collector.url, ScriptedBackend([["done"]], repeat=True), tmp_path / "far", agents=far
    ) as there:
        lead = spec(
            name="near",
            tools=("a2a",),
            mcp_servers={"elsewhere": McpServer(url=f"{there.url}/mcp")},
            tool_options={"a2a": {"url": f"{there.url}/a2a/helper"}},
        )
        with serving(collector.url, near, tmp_path / "near", agents={"near": lead}) as here:
            begun = post(f"{here.url}/v1/runs", json={"agent": "near", "goal": "ask"}).json()
            shown = f"{here.url}/v1/runs/{begun['id']}"
            eventually(lambda: get(shown).json()["status"] == "answered", within_s=20.0)
    tools = [collector.named(f"execute_tool {each.name}") for each in calls]
    assert [span.error for span in tools] == ["", ""]
    helped = [span for span in collector.spans if span.name == "invoke_agent helper"]
    assert [span.parent_id for span in helped] == [span.span_id for span in tools]
    assert len({span.trace_id for span in collector.spans}) == 1


KILLED = """
import asyncio, os, pathlib, signal, sys
sys.path[:0] = sys.argv[3:]
from test_telemetry import exporting
from agent_support import harness
from pentad.agent.tools.functions import tool
from trace_support import TOOLS, leading, script

async def main():
    telemetry = exporting(sys.argv[2])
    async with harness(pathlib.Path(sys.argv[1]), [], TOOLS, tracing=telemetry.tracing) as h:
        h.backend._turns = script()._turns
        def watch(records):
            kinds = [record.kind for record in records]
            if "sub_run_started" in kinds:
                telemetry.flush()
                print(records[-1].run_id, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        with telemetry.following(h.journal), h.journal.watch(None, watch):
            await h.work(leading())

asyncio.run(main())
"""


def test_a_run_of_a_killed_process_goes_on_in_the_same_trace(
    collector: Collector, tmp_path: pathlib.Path
) -> None:
    here = pathlib.Path(__file__).parent
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), collector.url, str(here), str(here.parent)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == -9, child.stderr
    run_id = child.stdout.strip()
    before = list(collector.spans)
    assert {"execute_tool search", "chat scripted"} <= {span.name for span in before}
    assert "invoke_agent lead" not in {span.name for span in before}

    async def go_on() -> None:
        telemetry = exporting(collector.url)
        async with harness(tmp_path, [], TOOLS, tracing=telemetry.tracing) as h:
            h.backend._turns = script()._turns
            with telemetry.following(h.journal):
                await h.runtime.resume(run_id)
                assert (await h.runtime.wait(run_id)).answer == "the whole"
        telemetry.close()

    run(go_on())
    lead = collector.named("invoke_agent lead")
    assert {span.trace_id for span in collector.spans} == {lead.trace_id}
    assert all(span.parent_id == lead.span_id for span in before)
    assert collector.named("invoke_agent ann").parent_id == collector.named("execute_tool delegate").span_id
    assert "pentad.run.resumed" in lead.events
    assert len({span.span_id for span in collector.spans}) == 8


def test_tools_are_told_where_they_stand_and_nobody_is_where_traces_are_off(
    collector: Collector, tmp_path: pathlib.Path
) -> None:
    seen: list[dict[str, str]] = []

    @tool(name="search")
    def looking(text: str) -> str:
        "Looks something up."
        seen.append(outgoing())
        return text

    async def work(telemetry: Telemetry | None) -> None:
        tracing = None if telemetry is None else telemetry.tracing
        name = "on.db" if telemetry else "off.db"
        async with harness(tmp_path, [], [looking], tracing=tracing, journal=name) as h:
            h.backend._turns = script()._turns
            if telemetry is None:
                await h.work(leading())
                return
            with telemetry.following(h.journal):
                await h.work(leading())
        telemetry.close()

    run(work(None))
    run(work(exporting(collector.url)))
    off, on = seen
    assert off == {}
    span = collector.named("execute_tool search")
    assert on == {"traceparent": f"00-{span.trace_id}-{span.span_id}-01"}


def test_a_collector_that_is_away_is_told_once_and_hinders_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    gone = Collector()
    gone.close()
    backend = ScriptedBackend([["Hi"]], repeat=True)
    with caplog.at_level(logging.WARNING), serving(gone.url, backend) as server:
        sender = server.gateway.services.telemetry.sender  # type: ignore[union-attr]
        for _ in range(2):
            began_s = time.monotonic()
            assert post(f"{server.url}/v1/chat/completions", json=CHAT).status_code == 200
            assert time.monotonic() - began_s < 2.0
            sender.flush(0.01)
        eventually(lambda: sender.dropped == 2, within_s=15.0)
        assert 'pentad_telemetry_spans_total{outcome="dropped"} 2.0' in get(f"{server.url}/metrics").text
    told = [record.getMessage() for record in caplog.records if "traces do not arrive" in record.getMessage()]
    assert len(told) == 1
    assert gone.url in told[0]
    assert "Connection refused" in told[0]
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry")]


def test_without_the_extra_and_with_bad_settings_the_remedy_is_told(
    pentad_: Pentad, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    refused = pentad_("config", "show", "--otlp-endpoint", "http://localhost:1")
    assert "set traces to otlp" in refused.err
    shown = pentad_("config", "show", "--traces", "otlp")
    assert shown.status == 0
    on = TelemetrySettings(traces="otlp")
    with pytest.raises(InvalidRequest, match="OTEL_BSP_MAX_QUEUE_SIZE is 'many'"):
        telemetry_of(on, clock=time.monotonic, env={"OTEL_BSP_MAX_QUEUE_SIZE": "many"})
    with pytest.raises(InvalidRequest, match="OTEL_BSP_MAX_QUEUE_SIZE is 0"):
        telemetry_of(on, clock=time.monotonic, env={"OTEL_BSP_MAX_QUEUE_SIZE": "0"})
    assert telemetry_of(on, clock=time.monotonic, env={"OTEL_SDK_DISABLED": "true"}) is None
    assert (
        telemetry_of(TelemetrySettings(), clock=time.monotonic, env={"OTEL_BSP_MAX_QUEUE_SIZE": "x"}) is None
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra) as missing:
        telemetry_of(on, clock=time.monotonic, env={})
    assert missing.value.hint is not None
    assert "pip install 'pentad[telemetry]'" in missing.value.hint
