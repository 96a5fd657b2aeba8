"""The waterfall of a run: what happened when, what was to be expected, and what bound it."""

from __future__ import annotations

import pytest

from agent_support import spec
from pentad.agent.codec import encode
from pentad.agent.events import Event, Record, RunEnded, RunResumed, RunStarted
from pentad.agent.model_events import ModelAnswered, ModelAsked, ModelFailed
from pentad.agent.tool_events import ToolReturned
from pentad.agent.waterfall import Bar, Costs, waterfall
from pentad.types import Decision, Layer, Span, Usage

STARTED = RunStarted(agent=encode(spec()), goal="g", tenant="t")


def span(layer: Layer, name: str, start: float, end: float) -> Span:
    return Span(layer=layer, name=name, start_s=start, end_s=end)


def record(number: int, clock: float, event: Event, *spans: Span, at: float | None = None) -> Record:
    at_s = 1000 + clock if at is None else at
    return Record(run_id="r", sequence=number, at_s=at_s, clock_s=clock, event=event, spans=spans)


def asked(step: int = 1, attempt: int = 1, room: int = 40) -> ModelAsked:
    return ModelAsked(
        step=step, attempt=attempt, purpose="act", request_id="q", prompt_tokens=60, reserved_tokens=60 + room
    )


def answered(start: float, decode: float, tokens: int, reason: str = "stop", step: int = 1) -> ModelAnswered:
    """One call: queued for 1 s, prefill for 2 s, decoding for `decode` seconds."""
    spans = (
        span("resource", "queue", start, start + 1),
        span("execution", "prefill", start + 1, start + 3),
        span("execution", "decode", start + 3, start + 3 + decode),
    )
    model = Decision(layer="model", policy="fixed", subject="model", chosen="m")
    full = Decision(layer="resource", policy="s", subject="chunk", chosen="1", constraint="free_blocks")
    usage = Usage(
        prompt_tokens=60, cached_tokens=20, completion_tokens=tokens, spans=spans, decisions=(model, full)
    )
    return ModelAnswered(step=step, attempt=1, purpose="act", reason=reason, usage=usage)


def kinds(bars: tuple[Bar, ...]) -> list[tuple[str, float, float]]:
    return [(bar.kind, bar.start_s, bar.end_s) for bar in bars]


def test_bars_lie_on_the_runs_own_time_by_step_and_call() -> None:
    bars = waterfall(
        [
            record(1, 500.0, STARTED),
            record(2, 501.0, asked(), span("agent", "planner", 500.0, 500.5)),
            record(3, 507.0, answered(501.0, 3.0, 10), span("model", "call", 501.0, 507.0)),
            record(
                4,
                509.0,
                ToolReturned(
                    step=1, index=0, call_id="c", tool="t", status="ok", content="", limit="timeout_s 2"
                ),
                span("agent", "tool t", 507.0, 509.0),
            ),
        ]
    )
    assert kinds(bars) == [
        ("planning", 0.0, 0.5),
        ("queue", 1.0, 2.0),
        ("prefill", 2.0, 4.0),
        ("decode", 4.0, 7.0),
        ("tool", 7.0, 9.0),
    ]
    assert [bar.attempt for bar in bars] == [None, 1, 1, 1, None]
    assert [bar.limit for bar in bars] == [None, "free_blocks", "free_blocks", None, "timeout_s 2"]
    assert bars[-1].name == "t"


def test_an_answer_that_was_cut_names_the_limit_that_cut_it() -> None:
    bars = waterfall(
        [record(1, 0, STARTED), record(2, 0, asked()), record(3, 9, answered(0, 6, 40, "length"))]
    )
    assert [bar.limit for bar in bars if bar.kind == "decode"] == ["max_tokens 40"]


def test_a_call_is_held_against_the_others_of_its_model() -> None:
    earlier = [
        [record(1, 0, STARTED), record(2, 99, answered(0, n / 10, n, step=1))] for n in (10, 20, 40, 80)
    ]
    slow = [record(1, 0, STARTED), record(2, 0, asked()), record(3, 99, answered(0, 30.0, 60))]
    (decode,) = [bar for bar in waterfall(slow, earlier) if bar.kind == "decode"]
    assert decode.expected_s == pytest.approx(6.0)
    assert decode.seconds == 30.0
    assert all(bar.expected_s is None for bar in waterfall(slow))


def test_an_outlier_moves_the_expectation_little_and_it_is_never_negative() -> None:
    costs = Costs()
    for size, seconds in [(10, 1.0), (20, 2.0), (30, 3.0), (40, 90.0), (50, 5.0)]:
        costs.add("k", size, seconds)
    assert costs.expected_s("k", 60, 7.0) == pytest.approx(6.0, abs=1.0)
    falling = Costs(samples={"k": [(10, 5.0), (20, 3.0), (30, 1.0)]})
    assert falling.expected_s("k", 1000, 0.0) == 3.0
    assert falling.expected_s("other", 1, 0.0) is None


def test_a_retry_is_a_wait_with_its_reason_and_a_failed_call_has_its_time() -> None:
    failed = ModelFailed(step=1, attempt=1, error="the backend is gone", retry=True)
    bars = waterfall(
        [
            record(1, 0.0, STARTED),
            record(2, 1.0, asked()),
            record(3, 4.0, failed),
            record(4, 6.0, asked(attempt=2)),
        ]
    )
    assert kinds(bars) == [("model", 1.0, 4.0), ("waiting", 4.0, 6.0)]
    assert [(bar.name, bar.limit) for bar in bars] == [
        ("failed", "the backend is gone"),
        ("retry", "the backend is gone"),
    ]


def test_after_a_restart_time_goes_on_where_the_wall_clock_is() -> None:
    bars = waterfall(
        [
            record(1, 5000.0, STARTED, at=1000.0),
            record(2, 5004.0, asked(), at=1004.0),
            record(3, 20.0, RunResumed(), at=1064.0),
            record(4, 26.0, answered(20.0, 3.0, 10), at=1070.0),
            record(5, 26.0, RunEnded(status="answered"), at=1070.0),
        ]
    )
    assert kinds(bars)[:2] == [("waiting", 4.0, 64.0), ("queue", 64.0, 65.0)]
    assert bars[0].name == "no process"
