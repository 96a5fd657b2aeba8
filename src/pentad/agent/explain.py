"""explain: a run's wall time, tokens and decisions, attributed to the five layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from pentad.agent.approval import WAITING
from pentad.agent.events import Planned, Recalled, Record, RunResumed, StepEnded
from pentad.agent.model_events import ModelAnswered, SampleSelected
from pentad.agent.sub_run_events import Coordinated, SubRunEnded, SubRunStarted
from pentad.agent.tool_events import ResultReduced, ToolReturned, ToolsOffered
from pentad.agent.waterfall import Bar, waterfall
from pentad.types import LAYERS, Decision, Layer, Span

_DEPTH = {layer: depth for depth, layer in enumerate(LAYERS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one layer took."""

    layer: Layer
    seconds: float
    parts: tuple[tuple[str, float], ...]
    """Its spans by name with their attributed seconds, longest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubRunShare:
    """What a sub-run took; its own explanation has the parts."""

    run_id: str
    agent: str
    status: str
    step: int
    seconds: float | None
    """From its beginning to its end, waiting included; None while it is under way, or over a restart."""
    tokens: int
    cost: float
    tool_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a run's time, tokens and choices went.

    At every instant the deepest layer with an open span has the time; what no span covers is the
    residual. Time between a crash and the resumption belongs to nobody and is shown apart.
    """

    run_id: str
    active_s: float
    waiting_s: float
    """For a person; in no share, and not active."""
    offline_s: float
    shares: tuple[Share, ...]
    residual_s: float
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    model_calls: int = 0
    tool_calls: int = 0
    decisions: tuple[Decision, ...] = field(default=())
    waterfall: tuple[Bar, ...] = ()
    sub_runs: tuple[SubRunShare, ...] = ()
    """In the order in which they began; what they used is not in the numbers above."""

    @property
    def residual_fraction(self) -> float:
        """The share of the active time that no layer accounts for."""
        return self.residual_s / self.active_s if self.active_s > 0 else 0.0


def explain(records: Sequence[Record], earlier: Iterable[Sequence[Record]] = ()) -> Explanation:
    """The explanation of a run from its records, at least one.

    Args:
        earlier: records of other runs, which say how long calls of their models and tools take.
    """
    active_s = offline_s = 0.0
    taken: dict[tuple[Layer, str], float] = {}
    last: Record | None = None
    for segment in _segments(records):
        start_s, end_s = segment[0].clock_s, segment[-1].clock_s
        active_s += end_s - start_s
        if last is not None:
            offline_s += max(0.0, segment[0].at_s - last.at_s)
        last = segment[-1]
        for key, seconds in attribute(_spans(segment), start_s, end_s).items():
            taken[key] = taken.get(key, 0.0) + seconds
    answers = [r.event for r in records if isinstance(r.event, ModelAnswered)]
    waiting_s = taken.pop(("agent", WAITING), 0.0)
    active_s -= waiting_s
    return Explanation(
        run_id=records[0].run_id,
        active_s=active_s,
        waiting_s=waiting_s,
        offline_s=offline_s,
        shares=tuple(_share(layer, taken) for layer in LAYERS),
        residual_s=max(0.0, active_s - sum(taken.values())),
        prompt_tokens=sum(a.usage.prompt_tokens for a in answers),
        cached_tokens=sum(a.usage.cached_tokens for a in answers),
        completion_tokens=sum(a.usage.completion_tokens for a in answers),
        cost=sum(a.usage.cost for a in answers),
        model_calls=len(answers),
        tool_calls=sum(isinstance(r.event, ToolReturned) for r in records),
        decisions=tuple(_decisions(records)),
        waterfall=waterfall(records, earlier),
        sub_runs=tuple(_sub_runs(records)),
    )


def attribute(spans: Iterable[Span], start_s: float, end_s: float) -> dict[tuple[Layer, str], float]:
    """Seconds per (layer, span name) within the interval, each instant counted once.

    The deepest layer wins; within a layer the span that began last. One sweep over the ends,
    O(n log n) plus the number of spans open at once.
    """
    clipped = [(max(start_s, s.start_s), min(end_s, s.end_s), s) for s in spans if s.end_s > s.start_s]
    ends = sorted(
        {t for a, b, _ in clipped if b > a for t in (a, b)},
    )
    order = sorted((item for item in clipped if item[1] > item[0]), key=lambda item: item[0])
    taken: dict[tuple[Layer, str], float] = {}
    open_now: list[tuple[float, float, Span]] = []
    upcoming = 0
    for left, right in itertools.pairwise(ends):
        while upcoming < len(order) and order[upcoming][0] <= left:
            open_now.append(order[upcoming])
            upcoming += 1
        open_now = [item for item in open_now if item[1] > left]
        if not open_now:
            continue
        _, _, span = max(open_now, key=lambda item: (_DEPTH[item[2].layer], item[0]))
        key = (span.layer, span.name)
        taken[key] = taken.get(key, 0.0) + right - left
    return taken


def _segments(records: Sequence[Record]) -> list[list[Record]]:
    """Records cut where another process, with another clock, took over."""
    segments: list[list[Record]] = []
    for record in records:
        if not segments or isinstance(record.event, RunResumed):
            segments.append([])
        segments[-1].append(record)
    return segments


def _spans(segment: Iterable[Record]) -> Iterable[Span]:
    for record in segment:
        yield from record.spans
        if isinstance(record.event, ModelAnswered):
            yield from record.event.usage.spans


def _share(layer: Layer, taken: dict[tuple[Layer, str], float]) -> Share:
    parts = sorted(((n, s) for (of, n), s in taken.items() if of == layer), key=lambda part: -part[1])
    return Share(layer=layer, seconds=sum(s for _, s in parts), parts=tuple(parts))


def _sub_runs(records: Sequence[Record]) -> Iterable[SubRunShare]:
    begun: dict[str, tuple[SubRunStarted, float | None]] = {}
    ended: dict[str, tuple[SubRunEnded, float]] = {}
    for record in records:
        match record.event:
            case RunResumed():  # another clock
                begun = {i: (event, at_s if i in ended else None) for i, (event, at_s) in begun.items()}
            case SubRunStarted() as event:
                begun[event.run_id] = (event, record.clock_s)
            case SubRunEnded() as event:
                ended[event.run_id] = (event, record.clock_s)
    for run_id, (event, at_s) in begun.items():
        end, end_s = ended.get(run_id, (None, None))
        yield SubRunShare(
            run_id=run_id,
            agent=event.agent,
            status="running" if end is None else end.status,
            step=event.step,
            seconds=None if at_s is None or end_s is None else end_s - at_s,
            tokens=0 if end is None else end.tokens,
            cost=0.0 if end is None else end.cost,
            tool_calls=0 if end is None else end.tool_calls,
        )


_DECIDING = Planned | StepEnded | Coordinated | SubRunStarted | SampleSelected | ToolsOffered | ResultReduced


def _decisions(records: Iterable[Record]) -> Iterable[Decision]:
    for record in records:
        event = record.event
        if isinstance(event, ModelAnswered):
            yield from event.usage.decisions
        elif isinstance(event, _DECIDING):
            yield from event.decisions
        elif isinstance(event, ToolReturned):
            # Wrappers of tools know no clock of the run.
            yield from (replace(decision, at_s=record.clock_s) for decision in event.decisions)
        elif isinstance(event, Recalled):
            yield Decision(
                layer="agent",
                policy="memory",
                subject="recalled",
                chosen=f"{len(event.items)} items",
                candidates=tuple((ident, score) for ident, _, score in event.items),
                at_s=record.clock_s,
            )
