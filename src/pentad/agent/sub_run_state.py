"""What a run knows of its sub-runs, folded from its own events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pentad.agent.budget import Amount, Ledger
from pentad.agent.run_status import UNFINISHED, RunStatus, Unfinished
from pentad.agent.sub_run_events import SubRunChanged, SubRunEnded, SubRunStarted
from pentad.types import Budget

Place = tuple[int, int]
"""A call of a run: (step, index)."""
HELD = "sub_run:"
"""Keys of the ledger under which budgets of sub-runs are held begin so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubRun:
    """One sub-run, as its parent knows it."""

    step: int
    index: int
    run_id: str
    agent: str
    goal: str
    budget: Budget
    status: RunStatus | Unfinished = "running"
    used: Amount = field(default_factory=Amount)
    """What it used in whole; 0 until it has ended."""

    @property
    def ended(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def held(self) -> Amount:
        """What its budget takes from the parent's while it is under way."""
        budget = self.budget
        return Amount(tokens=budget.tokens or 0, cost=budget.cost or 0.0, tool_calls=budget.tool_calls or 0)


SubRuns = Mapping[Place, SubRun]


def after(
    children: SubRuns, ledger: Ledger, event: SubRunStarted | SubRunChanged | SubRunEnded
) -> tuple[SubRuns, Ledger]:
    """The sub-runs and the ledger after one more event about a sub-run."""
    place = (event.step, event.index)
    key = f"{HELD}{event.step}:{event.index}"
    if isinstance(event, SubRunStarted):
        made = SubRun(
            step=event.step,
            index=event.index,
            run_id=event.run_id,
            agent=event.agent,
            goal=event.goal,
            budget=event.budget,
        )
        return {**children, place: made}, ledger.hold(key, made.held)
    known = children[place]
    if isinstance(event, SubRunChanged):
        return {**children, place: replace(known, status=event.status)}, ledger
    used = Amount(tokens=event.tokens, cost=event.cost, tool_calls=event.tool_calls)
    return {**children, place: replace(known, status=event.status, used=used)}, ledger.settle(key, used)


def taken_up(children: SubRuns) -> SubRuns:
    """The sub-runs when another process goes on: whether one waits it says itself, once it is taken up."""
    return {
        place: child if child.ended else replace(child, status="running") for place, child in children.items()
    }


def all_wait(children: SubRuns) -> bool:
    """Whether sub-runs are under way and each of them waits for a person."""
    under_way = [child for child in children.values() if not child.ended]
    return bool(under_way) and all(child.status == "waiting" for child in under_way)
