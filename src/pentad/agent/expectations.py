"""What a run expects to follow a model call: its place in the plan, the tool that is next, its time."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pentad.agent.events import Record
from pentad.agent.journal_view import JournalView
from pentad.agent.planning import progress
from pentad.agent.planning.base import ModelCallDraft, in_sequence
from pentad.agent.state import RunState
from pentad.errors import PentadError
from pentad.types import Hints

ANSWER: Final = "answer"
"""The node of the graph that every sub-goal leads to."""
_TOOL: Final = "tool "
"""How the spans of tool calls begin; the name of the tool follows."""
_RUNS: Final = 8
_SAMPLES: Final = 16
_MOST_TOOLS: Final = 1024
"""Tools, over all tenants, whose times are kept."""


class ToolTimes:
    """How long tools take: the median of their latest calls, from the journal's last runs and from now on.

    Each tenant knows its own tools only. One event loop uses it.
    """

    def __init__(self) -> None:
        self._seconds: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._learnt: set[str] = set()

    def add(self, tenant: str, tool: str, seconds: float) -> None:
        """Notes one call."""
        known = self._seconds.setdefault((tenant, tool), deque(maxlen=_SAMPLES))
        known.append(seconds)
        self._seconds.move_to_end((tenant, tool))
        if len(self._seconds) > _MOST_TOOLS:
            self._seconds.popitem(last=False)

    def expected_s(self, tenant: str, tool: str) -> float | None:
        """Seconds that the next call will likely take; None of a tool that the tenant never called."""
        known = self._seconds.get((tenant, tool))
        return statistics.median(known) if known else None

    async def learn(self, journal: JournalView, run_id: str, tenant: str) -> None:
        """Reads the tenant's last runs before this one, once in the life of a process."""
        if tenant in self._learnt:
            return
        self._learnt.add(tenant)
        with contextlib.suppress(PentadError):  # what cannot be read teaches nothing
            for tool, seconds in await asyncio.to_thread(_latest_calls, journal, run_id):
                self.add(tenant, tool, seconds)


def _latest_calls(journal: JournalView, run_id: str) -> list[tuple[str, float]]:
    earlier = journal.earlier(journal.run(run_id), _RUNS)
    return [call for records in reversed(earlier) for call in _calls(records)]


def _calls(records: Iterable[Record]) -> Iterable[tuple[str, float]]:
    for record in records:
        for span in record.spans:
            if span.layer == "agent" and span.name.startswith(_TOOL):
                yield span.name.removeprefix(_TOOL), span.end_s - span.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The place of a model call in its run, and what follows it."""

    graph: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    node: str | None = None
    parent: str | None = None
    hints: Hints = field(default_factory=Hints)


def outlook(state: RunState, draft: ModelCallDraft, times: ToolTimes, parent: str | None) -> Outlook:
    """What the run expects of a draft.

    Args:
        state: of the run, which has the plan and what has come of it.
        draft: the call that is about to be made.
        times: how long tools take.
        parent: id of the model call that this one follows from.
    """
    place = _place(state, draft)
    names = _names(state)
    next_hint = "end" if draft.next_hint == "tool" and not draft.tools else draft.next_hint
    node = ANSWER if names and next_hint == "end" else None
    if place is not None:
        node = names[place]
    tool = _tool(state, draft, place)
    needs = state.plan_needs or in_sequence(len(names))
    waits = {name: tuple(names[j] for j in needs[i]) for i, name in enumerate(names) if needs[i]}
    return Outlook(
        graph={**waits, ANSWER: names} if names else {},
        node=node,
        parent=parent,
        hints=Hints(
            next=next_hint,
            tool=tool,
            tool_s=None if tool is None else times.expected_s(state.tenant, tool),
            remaining_steps=_remaining(state, next_hint, place),
        ),
    )


def _names(state: RunState) -> tuple[str, ...]:
    return tuple(f"{i}-{tool or 'think'}" for i, (tool, _) in enumerate(state.plan or (), 1))


def _place(state: RunState, draft: ModelCallDraft) -> int | None:
    """Which sub-goal the call serves: the one that it names, else the first that is open."""
    if not state.plan or draft.purpose != "act":
        return None
    if draft.goal is not None:
        return draft.goal
    goals = progress.by_tool(state)
    return next((i for i, goal in enumerate(goals) if goal.status == "open"), None)


def _tool(state: RunState, draft: ModelCallDraft, place: int | None) -> str | None:
    """The tool that will likely run next: the one that must, the plan's, the only one, the last one."""
    if draft.next_hint != "tool":
        return None
    if draft.tool_choice.name is not None:
        return draft.tool_choice.name
    if place is not None and state.plan and state.plan[place][0]:
        return state.plan[place][0]
    if len(draft.tools) == 1:
        return draft.tools[0].name
    called = [result.tool for exchange in state.closed for result in exchange.results.values()]
    return called[-1] if called else None


def _remaining(state: RunState, next_hint: str, place: int | None) -> int | None:
    """Model calls behind this one: for each open sub-goal behind its own one, for the answer, and the
    steps of whoever waits for that; these alone where there is no plan."""
    behind = state.steps_behind or 0
    if next_hint == "end":
        return behind
    if place is None:
        return state.steps_behind
    goals = progress.by_tool(state)[place + 1 :]
    steps = 1 + sum(goal.status == "open" for goal in goals)
    return min(steps, max(0, state.spec.max_steps - state.step)) + behind
