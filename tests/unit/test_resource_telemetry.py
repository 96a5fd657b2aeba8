"""Exports of OpenTelemetry as loads: who waits for whom, pauses, shared beginnings, and what is no export."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from resource_samples import TINY, measured_device

from pentad.errors import InvalidRequest
from pentad.resource.simulator import SimulationOptions, read_trace, simulate

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data" / "agent-traces"


def span(name: str, begin_s: float, end_s: float, trace: str = "t1", **attributes: Any) -> dict[str, Any]:
    """A span as OTLP writes it in JSON."""

    def value(found: Any) -> dict[str, Any]:
        return {"intValue": str(found)} if isinstance(found, int) else {"stringValue": found}

    named = {"gen_ai." + key.replace("__", "."): found for key, found in attributes.items()}
    return {
        "traceId": trace,
        "spanId": f"{begin_s}",
        "name": name,
        "startTimeUnixNano": str(round(begin_s * 1e9)),
        "endTimeUnixNano": str(round(end_s * 1e9)),
        "attributes": [{"key": key, "value": value(found)} for key, found in named.items()],
    }


def chat(begin_s: float, end_s: float, prompt: int, answer: int, **more: Any) -> dict[str, Any]:
    usage = {"usage__input_tokens": prompt, "usage__output_tokens": answer}
    return span("chat m", begin_s, end_s, operation__name="chat", **usage, **more)


def export(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


RUN = (
    span("invoke_agent helper", 100.0, 120.0, operation__name="invoke_agent"),
    chat(100.5, 102.0, 200, 20),
    span("execute_tool search", 102.1, 104.0, operation__name="execute_tool", tool__name="search"),
    chat(104.0, 105.0, 260, 10),
    chat(104.0, 106.0, 250, 10),
    chat(107.5, 109.0, 400, 30),
)


def test_a_run_is_read_with_its_branches_tools_and_pauses(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "yesterday.json"
    path.write_text(json.dumps(export(*RUN)), encoding="utf-8")
    first, left, right, last = read_trace(path)
    assert [item.prompt_tokens for item in (first, left, right, last)] == [200, 260, 250, 400]
    assert [item.output_tokens for item in (first, left, right, last)] == [20, 10, 10, 30]
    assert first.arrival_s == 0.0
    assert first.waits_for == ()
    assert (left.waits_for, right.waits_for) == ((first.id,), (first.id,))
    assert set(last.waits_for) == {left.id, right.id}
    assert (left.pause_s, last.pause_s) == (pytest.approx(2.0), pytest.approx(1.5))
    assert first.hints is not None
    assert (first.hints.next, first.hints.tool) == ("tool", "search")
    assert last.hints is not None
    assert last.hints.next == "end"
    assert {item.run for item in (first, left, right, last)} == {"t1"}
    report = simulate(
        [first, left, right, last], TINY, measured_device(), options=SimulationOptions(kv_blocks=300)
    )
    # Each longer prompt begins with the one before it, which is cached in whole blocks.
    assert [record.cached_tokens for record in report.records] == [0, 192, 192, 240]
    assert report.run_seconds.keys() == {"t1"}


def test_messages_tell_what_prompts_share_and_lines_may_hold_an_export_each(tmp_path: pathlib.Path) -> None:
    system = {"role": "system", "content": "s" * 400}
    asked = [[system, {"role": "user", "content": text * 100}] for text in "ab"]
    path = tmp_path / "spans.jsonl"
    lines = [
        export(chat(float(i), i + 0.5, 150, 5, trace=f"t{i}", input__messages=json.dumps(messages)))
        for i, messages in enumerate(asked)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    one, two = read_trace(path)
    assert one.run is None  # a call by itself is no run
    assert one.segments[0] == two.segments[0]
    assert one.segments[1][0] != two.segments[1][0]
    assert sum(tokens for _, tokens in one.segments) == 150


def test_a_conversation_over_several_traces_and_files_is_one_run(tmp_path: pathlib.Path) -> None:
    for i in range(2):
        call = chat(10.0 * i, 10.0 * i + 1, 50 + i, 5, trace=f"t{i}", conversation__id="c")
        (tmp_path / f"{i}.json").write_text(json.dumps(export(call)), encoding="utf-8")
    first, second = read_trace(tmp_path)
    assert second.waits_for == (first.id,)
    assert second.pause_s == pytest.approx(9.0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared traces are not here")
def test_published_agent_traces_are_read() -> None:
    items = read_trace(SHARED)
    assert len(items) == 15
    assert any(item.waits_for for item in items)


def test_a_call_without_usage_or_messages_and_a_broken_export_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "spans.json"
    path.write_text(json.dumps(export(span("chat m", 0.0, 1.0, operation__name="chat"))), encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"neither gen_ai.usage.input_tokens nor messages") as refused:
        read_trace(path)
    assert refused.value.hint == "export the usage of model calls"
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}), encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"'spans.json' is malformed"):
        read_trace(path)
