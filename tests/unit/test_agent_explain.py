"""Attribution of time to layers, across calls and restarts."""

from __future__ import annotations

import pytest

from agent_support import spec
from pentad.agent.codec import encode
from pentad.agent.events import Event, Record, RunEnded, RunResumed, RunStarted
from pentad.agent.explain import attribute, explain
from pentad.agent.model_events import ModelAnswered
from pentad.agent.tool_events import ToolReturned
from pentad.types import Decision, Layer, Span, Usage

STARTED = RunStarted(agent=encode(spec()), goal="g", tenant="t")


def span(layer: Layer, start: float, end: float, name: str = "x") -> Span:
    return Span(layer=layer, name=name, start_s=start, end_s=end)


def record(number: int, clock: float, event: Event, *spans: Span, at: float | None = None) -> Record:
    return Record(
        run_id="r",
        sequence=number,
        at_s=1000 + clock if at is None else at,
        clock_s=clock,
        event=event,
        spans=spans,
    )


def answered(*spans: Span) -> ModelAnswered:
    decision = Decision(layer="model", policy="fixed", subject="model", chosen="m")
    usage = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=4, spans=spans, decisions=(decision,))
    return ModelAnswered(step=1, attempt=1, purpose="act", usage=usage)


def test_the_deepest_open_layer_has_the_time() -> None:
    spans = [span("agent", 0, 10), span("model", 2, 8), span("execution", 4, 6)]
    taken = {layer: s for (layer, _), s in attribute(spans, 0, 10).items()}
    assert taken == {"agent": 4.0, "model": 4.0, "execution": 2.0}


def test_within_a_layer_the_latest_begun_has_it() -> None:
    spans = [span("agent", 0, 10, "outer"), span("agent", 3, 5, "inner")]
    assert attribute(spans, 0, 10) == {("agent", "outer"): 8.0, ("agent", "inner"): 2.0}


def test_what_reaches_beyond_the_interval_is_cut_there() -> None:
    assert attribute([span("model", -5, 50)], 0, 10) == {("model", "x"): 10.0}
    assert attribute([span("model", 20, 50), span("model", 5, 4)], 0, 10) == {}


def test_what_no_span_covers_is_the_residual() -> None:
    records = [
        record(1, 100.0, STARTED),
        record(2, 108.0, answered(span("execution", 101.0, 107.0)), span("model", 100.5, 108.0)),
        record(3, 110.0, RunEnded(status="answered")),
    ]
    explained = explain(records)
    assert explained.active_s == 10.0
    assert {s.layer: s.seconds for s in explained.shares if s.seconds} == {"model": 1.5, "execution": 6.0}
    assert explained.residual_s == pytest.approx(2.5)
    assert explained.residual_fraction == pytest.approx(0.25)
    assert (explained.prompt_tokens, explained.cached_tokens, explained.completion_tokens) == (10, 4, 5)
    assert [d.policy for d in explained.decisions] == ["fixed"]


def test_a_restart_is_another_clock_and_the_time_between_is_nobodys() -> None:
    records = [
        record(1, 5000.0, STARTED, at=1000.0),
        record(2, 5004.0, answered(span("execution", 5000.0, 5004.0)), at=1004.0),
        # After a reboot the monotonic clock begins again; an hour has passed.
        record(3, 20.0, RunResumed(), at=4604.0),
        record(4, 23.0, answered(span("execution", 20.0, 23.0)), at=4607.0),
        record(5, 23.0, RunEnded(status="answered"), at=4607.0),
    ]
    explained = explain(records)
    assert (explained.active_s, explained.offline_s) == (7.0, 3600.0)
    assert explained.residual_s == 0.0
    assert explained.model_calls == 2


def test_a_wall_clock_that_was_set_back_gives_no_negative_time() -> None:
    records = [
        record(1, 10.0, STARTED, at=9000.0),
        record(2, 1.0, RunResumed(), at=100.0),
        record(3, 2.0, RunEnded(status="answered"), at=101.0),
    ]
    assert explain(records).offline_s == 0.0


def test_parallel_tools_share_the_wall_time_they_took() -> None:
    returned = ToolReturned(step=1, index=0, call_id="c", tool="t", status="ok", content="")
    records = [
        record(1, 0.0, STARTED),
        record(2, 4.0, returned, span("agent", 0.0, 4.0, "tool a")),
        record(3, 6.0, returned, span("agent", 0.0, 6.0, "tool b")),
        record(4, 6.0, RunEnded(status="answered")),
    ]
    explained = explain(records)
    agent = next(s for s in explained.shares if s.layer == "agent")
    assert agent.seconds == 6.0
    assert explained.tool_calls == 2


def test_a_run_without_time_has_no_residual() -> None:
    assert explain([record(1, 1.0, STARTED)]).residual_fraction == 0.0
