"""Elastic: how a goal is reasoned about is left to the router, which chooses it together with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pentad.agent.exchange import Exchange
from pentad.agent.planning.base import (
    Alternatives,
    Decided,
    Draft,
    ModelCallDraft,
    ParallelDraft,
    Planner,
    Reading,
    Selection,
    Unusable,
    View,
)
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.agent.values import changed
from pentad.choice import Choice, build

_BEHIND = " | "
"""Between a way and what its planner calls the exchange."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """Offers several planners' first calls; the router `elastic` takes one, with its model and its length.

    The choice is made per goal from the objective, what is left of the budget, and how each planner has done
    with each model on such tasks. A planner that gives up is followed by another of the rest, out of the
    same budget. With any other router the first of `among` is at work, and the next where it gives up.

    Source: survey VII-B1, flexible reasoning strategies; ours chooses strategy and model at once.
    """

    among: tuple[str, ...] = ("cot:think_tokens=0", "cot:think_tokens=128", "cot:think_tokens=256,samples=3")
    """Planners to choose from, as an agent file writes them, in the order of trying without a choice."""

    name = "elastic"

    def __post_init__(self) -> None:
        if not self.among:
            raise ValueError("among names no planner")
        if len(set(self.among)) != len(self.among):
            raise ValueError(f"among names one twice: {', '.join(self.among)}")
        for each in self.among:
            choice = Choice.of(each)
            if choice.name in (self.name, "flexible"):
                raise ValueError(f"among names {choice.name!r}, which chooses planners itself")
            build("planner", choice)

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:
        """What the planner at work withholds; nothing before there is one."""
        way = _at_work(state)
        return {} if way is None else _built(way).withholds(_own(state, way), tools)

    def exhausted(self, state: RunState) -> bool:
        """Whether the planner at work gives up and no other is left."""
        way = _at_work(state)
        return way is not None and not self._left(state) and _built(way).exhausted(_own(state, way))

    def draft(self, view: View) -> Draft:
        """The first calls of the planners that may come next, or what the one at work asks."""
        way = _at_work(view.state)
        last_step = view.state.step >= view.state.spec.max_steps
        if way is not None and (last_step or not _built(way).exhausted(_own(view.state, way))):
            return _labelled(way, _built(way).draft(_inner(view, way)))
        first = {each: _built(each).draft(_inner(view, each)) for each in self._left(view.state)}
        asking = {each: draft for each, draft in first.items() if isinstance(draft, ModelCallDraft)}
        if len(asking) > 1:
            return Alternatives(ways=tuple((each, _named(each, draft)) for each, draft in asking.items()))
        each = next(iter(asking or first), self.among[0])
        return _labelled(each, first[each] if each in first else _built(each).draft(_inner(view, each)))

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:
        """What the planner at work takes."""
        way = _way(candidates[0]) or self.among[0]
        taken = _built(way).select(_inner(view, way), [_bare(each) for each in candidates])
        return replace(taken, decision=replace(taken.decision, policy=self.name))

    def read(self, view: View, answer: Exchange) -> Reading:
        """As the planner that asked reads it."""
        way = _way(answer)
        if way is None:
            return Unusable(problem="nobody asked for it")
        return _built(way).read(_inner(view, way), _bare(answer))

    def _left(self, state: RunState) -> tuple[str, ...]:
        """Planners that were not at work yet."""
        tried = {_way(each) for each in state.exchanges}
        return tuple(each for each in self.among if each not in tried)


def _built(way: str) -> Planner:
    planner: Planner = build("planner", Choice.of(way))
    return planner


def _way(exchange: Exchange) -> str | None:
    """The planner that asked for an exchange."""
    way, behind, _ = exchange.label.partition(_BEHIND)
    return way if behind else None


def _at_work(state: RunState) -> str | None:
    ways = [way for each in state.closed if (way := _way(each)) is not None]
    return ways[-1] if ways else None


def _bare(exchange: Exchange) -> Exchange:
    return changed(exchange, label=exchange.label.partition(_BEHIND)[2])


def _own(state: RunState, way: str) -> RunState:
    """The run as that planner alone would know it."""
    kept = tuple(_bare(each) for each in state.exchanges if _way(each) == way)
    made = any(each.outcome in ("planned", "replanned") for each in kept)
    plan = (state.plan, state.plan_needs) if made else (None, None)
    return changed(state, exchanges=kept, plan=plan[0], plan_needs=plan[1])


def _inner(view: View, way: str) -> View:
    return replace(view, state=_own(view.state, way))


def _named(way: str, draft: ModelCallDraft) -> ModelCallDraft:
    return replace(draft, label=f"{way}{_BEHIND}{draft.label}")


def _labelled(way: str, draft: Draft) -> Draft:
    """The draft, so labelled that its answer tells who asked."""
    match draft:
        case ModelCallDraft():
            return _named(way, draft)
        case ParallelDraft():
            return replace(draft, calls=tuple(_named(way, each) for each in draft.calls))
        case Decided():
            return replace(draft, label=f"{way}{_BEHIND}{draft.label}")
        case Alternatives():
            raise AssertionError("planners that choose planners are refused")
