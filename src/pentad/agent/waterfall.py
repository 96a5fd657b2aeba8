"""waterfall: what a run did when, step by step, beside what it was expected to take and what bound it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pentad.agent.events import Record, RunResumed
from pentad.agent.model_events import ModelAnswered, ModelAsked, ModelFailed
from pentad.agent.tool_events import ToolReturned
from pentad.types import Span

Kind = Literal["queue", "prefill", "decode", "model", "tool", "waiting", "planning", "memory", "other"]
_OF_MODEL: Mapping[str, Kind] = {"queue": "queue", "prefill": "prefill", "decode": "decode"}
_OF_AGENT: Mapping[str, Kind] = {
    "planner": "planning",
    "context": "planning",
    "memory": "memory",
    "approval": "waiting",
}
_TOOL = "tool "
_MOST_SAMPLES = 60
"""Calls that an expectation is drawn from, the latest ones."""
_FEWEST_SAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One stretch of a run's time."""

    step: int
    kind: Kind
    name: str
    start_s: float
    """Since the run began; over restarts on the wall clock, within a process on its monotonic one."""
    end_s: float
    attempt: int | None = None
    """The model call of the step, for what belongs to one."""
    expected_s: float | None = None
    """What other calls of the same model or tool say that it should take; None with too few of them."""
    limit: str | None = None
    """What bound it: a setting or resource, and its value."""

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


@dataclass(slots=True)
class Costs:
    """How long calls took for their size, to say what the next one should take."""

    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By what was done: (size in tokens or 1, seconds)."""

    def add(self, key: str, size: float, seconds: float) -> None:
        """Notes one call."""
        self.samples.setdefault(key, []).append((size, seconds))

    def expected_s(self, key: str, size: float, seconds: float) -> float | None:
        """What the calls of that kind, without this one, say; None with fewer than three.

        A line through them by Theil and Sen: the median of the slopes between pairs, then of the
        intercepts. Neither is negative, and up to a quarter of outliers move it little.
        """
        others = list(self.samples.get(key, ()))
        if (size, seconds) in others:
            others.remove((size, seconds))
        others = others[-_MOST_SAMPLES:]
        if len(others) < _FEWEST_SAMPLES:
            return None
        slopes = [(t - s) / (b - a) for (a, s), (b, t) in itertools.combinations(others, 2) if a != b]
        slope = max(0.0, statistics.median(slopes)) if slopes else 0.0
        start = max(0.0, statistics.median(t - slope * n for n, t in others))
        return start + slope * size


def waterfall(records: Sequence[Record], earlier: Iterable[Sequence[Record]] = ()) -> tuple[Bar, ...]:
    """The bars of a run in the order of their beginnings.

    Args:
        records: the run's own, at least one.
        earlier: records of other runs on the same models and tools, from which to expect.
    """
    sized = list(_bars(records))
    costs = Costs()
    for key, size, bar in itertools.chain(*(_bars(other) for other in earlier), sized):
        if key:
            costs.add(key, size, bar.seconds)
    bars = [
        replace(bar, expected_s=costs.expected_s(key, size, bar.seconds)) if key else bar
        for key, size, bar in sized
    ]
    return tuple(sorted(bars, key=lambda bar: (bar.start_s, bar.end_s)))


Sized = tuple[str, float, Bar]
"""A bar with what it is compared by, "" for nothing, and its size there."""


def _bars(records: Sequence[Record]) -> Iterator[Sized]:
    zero_s = records[0].clock_s
    """On the process's clock, when the run would have begun."""
    step = 1
    asked: dict[tuple[int, int], tuple[ModelAsked, float]] = {}
    failed: tuple[ModelFailed, float] | None = None
    last = records[0]
    for record in records:
        event, now_s = record.event, record.clock_s
        step = getattr(event, "step", step)
        if isinstance(event, RunResumed):
            gone_s = max(0.0, record.at_s - last.at_s)
            zero_s = now_s - (last.clock_s - zero_s) - gone_s
            if gone_s:
                yield "", 0, _bar(step, "waiting", "no process", now_s - gone_s, now_s, zero_s)
        elif isinstance(event, ModelAsked):
            asked[event.step, event.attempt] = (event, now_s)
            if failed is not None:
                name, why = "retry", failed[0].error
                yield "", 0, replace(_bar(step, "waiting", name, failed[1], now_s, zero_s), limit=why)
                failed = None
        elif isinstance(event, ModelFailed):
            failed = (event, now_s) if event.retry else None
            _, began_s = asked.get((event.step, event.attempt), (None, now_s))
            bar = _bar(step, "model", "failed", began_s, now_s, zero_s)
            yield "", 0, replace(bar, attempt=event.attempt, limit=event.error)
        elif isinstance(event, ModelAnswered):
            call = asked.get((event.step, event.attempt))
            for key, size, bar in _model_bars(event, None if call is None else call[0], zero_s):
                yield key, size, bar
        yield from _agent_bars(record, step, zero_s)
        last = record


def _model_bars(answer: ModelAnswered, asked: ModelAsked | None, zero_s: float) -> Iterator[Sized]:
    """The spans that the layers below reported for one model call."""
    usage = answer.usage
    model = next((d.chosen for d in usage.decisions if d.subject == "model"), "")
    bound = next((d.constraint for d in usage.decisions if d.layer == "resource" and d.constraint), None)
    room = None if asked is None else asked.reserved_tokens - asked.prompt_tokens
    for span in usage.spans:
        kind = _OF_MODEL.get(span.name, "model")
        size = {
            "prefill": usage.prompt_tokens - usage.cached_tokens,
            "decode": usage.completion_tokens,
        }.get(span.name, 0)
        limit = bound if kind in ("queue", "prefill") else None
        if kind == "decode" and answer.reason == "length":
            limit = "max_tokens" if room is None else f"max_tokens {room}"
        bar = _bar(answer.step, kind, span.name, span.start_s, span.end_s, zero_s)
        yield f"{model} {span.name}", size, replace(bar, attempt=answer.attempt, limit=limit)


def _agent_bars(record: Record, step: int, zero_s: float) -> Iterator[Sized]:
    for span in record.spans:
        if not _is_ours(span):
            continue
        is_tool = span.name.startswith(_TOOL)
        kind: Kind = "tool" if is_tool else _OF_AGENT.get(span.name, "other")
        name = span.name.removeprefix(_TOOL)
        event = record.event
        ended = event if isinstance(event, ToolReturned) and is_tool and event.tool == name else None
        limit = ended.limit or None if ended is not None else None
        bar = _bar(step, kind, name, span.start_s, span.end_s, zero_s)
        yield (span.name if is_tool else ""), 1, replace(bar, limit=limit)


def _is_ours(span: Span) -> bool:
    # The span around a model call is told in parts by the layers that did it.
    return not (span.layer == "model" and span.name == "call")


def _bar(step: int, kind: Kind, name: str, start_s: float, end_s: float, zero_s: float) -> Bar:
    start_s = max(0.0, start_s - zero_s)
    return Bar(step=step, kind=kind, name=name, start_s=start_s, end_s=max(start_s, end_s - zero_s))
