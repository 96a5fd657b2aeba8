"""RunState: what a run has come to, folded from its events. The same fold serves live and restart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pentad.agent.budget import Amount, Ledger, consumed
from pentad.agent.codec import decode
from pentad.agent.events import (
    Origin,
    Planned,
    PlannerDecided,
    Recalled,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    StepEnded,
)
from pentad.agent.exchange import Exchange, after_answer, after_result, after_selection, after_step
from pentad.agent.model_events import (
    Compacted,
    LeftTurns,
    ModelAnswered,
    ModelAsked,
    ModelFailed,
    SampleSelected,
)
from pentad.agent.run_status import UNFINISHED, RunStatus, Unfinished
from pentad.agent.spec import AgentSpec
from pentad.agent.sub_run_events import (
    Coordinated,
    Inherited,
    Parent,
    SubRunChanged,
    SubRunEnded,
    SubRunStarted,
)
from pentad.agent.sub_run_state import HELD, SubRuns, after, all_wait, taken_up
from pentad.agent.tool_events import (
    ApprovalAnswered,
    ApprovalAsked,
    ResultReduced,
    ToolIntended,
    ToolReturned,
    ToolsOffered,
    ToolsWithheld,
)
from pentad.agent.totals import Totals
from pentad.agent.values import changed, derived
from pentad.content import Media
from pentad.types import Budget, Message, Objective


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Everything that is true of a run after its last journaled event."""

    run_id: str
    spec: AgentSpec
    goal: str
    tenant: str
    media: tuple[Media, ...] = ()
    """What the goal shows beside its text; with its data in the process that the run began in."""
    history: tuple[Message, ...] = ()
    inherited: Inherited | None = None
    """What the prompts of a sub-run begin with; None where it sees its task alone."""
    objective: Objective = field(default_factory=Objective)
    data_label: str | None = None
    forked_from: Origin | None = None
    parent: Parent | None = None
    priority: int = 0
    steps_behind: int | None = None
    traceparent: str = ""
    """Where whoever asked for it stands in a trace; "" where nobody says."""
    foreground: bool = False
    """Only who is asked to goes on with it after its process is gone."""
    started_s: float = 0.0
    """Wall clock; today's date for prompts, the same after a restart."""
    ended_s: float | None = None
    sequence: int = 0
    step: int = 1
    """The step that is under way or comes next."""
    attempt: int = 0
    """Model calls begun in this step."""
    plan: tuple[tuple[str, str], ...] | None = None
    """Sub-goals as (tool or "", task); None before planning."""
    plan_needs: tuple[tuple[int, ...], ...] | None = None
    """For each sub-goal the places of the earlier ones that it waits for; None: each for the one before."""
    withheld: tuple[tuple[str, str], ...] = ()
    """Tools that may not be called now, as (name, why)."""
    offered: tuple[str, ...] | None = None
    """Tools that the model sees, in order; None where it sees all that may be called."""
    offered_first: tuple[str, ...] | None = None
    """Those that its prompts present in front: what it was offered when it could first call some."""
    offers_told: tuple[tuple[int, str], ...] = ()
    """What it was told of later changes, each with the step before which it was."""
    exchanges: tuple[Exchange, ...] = ()
    intents: Mapping[tuple[int, int], ToolIntended] = field(default_factory=dict)
    """Tool calls begun and without a result, by (step, index)."""
    pending: Mapping[str, ApprovalAsked] = field(default_factory=dict)
    """What a person has been asked and has not answered, by approval id."""
    answers: Mapping[str, ApprovalAnswered] = field(default_factory=dict)
    """What was said to each approval, by its id."""
    children: SubRuns = field(default_factory=dict)
    """Its sub-runs, by (step, index) of the call that each answers."""
    recalled: tuple[tuple[str, str, float], ...] | None = None
    """Long-term memories in the context; None before any look-up."""
    dropped_turns: int = 0
    summary: str = ""
    left: LeftTurns | None = None
    """The turns that left its prompts, where they are kept by id."""
    ledger: Ledger = field(default_factory=Ledger)
    totals: Totals = field(default_factory=Totals)
    active_s: float = 0.0
    """Time at work, over all processes; time between them, or waiting for a person, is not counted."""
    clock_s: float = 0.0
    status: RunStatus | Unfinished = "running"
    answer: str = ""
    error: str | None = None

    @property
    def ended(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def current(self) -> Exchange | None:
        """The exchange of the step under way, if the model has answered."""
        last = self.exchanges[-1] if self.exchanges else None
        return last if last is not None and last.outcome is None else None

    @property
    def open(self) -> tuple[Exchange, ...]:
        """The exchanges of the step under way: one, or one for each of its parallel calls so far."""
        return derived(self, _open)

    @property
    def closed(self) -> tuple[Exchange, ...]:
        """The exchanges of the steps that are over."""
        return derived(self, _closed)

    def answer_to(self, step: int, index: int) -> ApprovalAnswered | None:
        """What was said about whether this call may be made."""
        found = (a for a in self.answers.values() if (a.step, a.index) == (step, index))
        return next(found, None)

    @property
    def budget_left(self) -> Budget:
        """What the run may still use."""
        return self.ledger.left(self.active_s)

    def apply(self, record: Record) -> RunState:
        """The state after one more event. Live-only events change nothing."""
        if record.live:
            return self
        idle = self.status == "waiting" or isinstance(record.event, RunResumed)
        passed = 0.0 if idle else max(0.0, record.clock_s - self.clock_s)
        ended_s = record.at_s if isinstance(record.event, RunEnded) else self.ended_s
        active_s = self.active_s + passed
        state = changed(
            self, sequence=record.sequence, clock_s=record.clock_s, active_s=active_s, ended_s=ended_s
        )
        return state._after(record.event)

    def _after(self, event: Any) -> RunState:
        match event:
            case RunResumed():
                # A tool that asked for input died with the process; nobody waits for that answer.
                pending = {i: asked for i, asked in self.pending.items() if asked.outlives_process}
                ledger, children = self.ledger.forfeit(keep=HELD), taken_up(self.children)
                return changed(
                    self, ledger=ledger, children=children, pending=pending, foreground=event.foreground
                )._noted()
            case ApprovalAsked():
                return changed(self, pending={**self.pending, event.approval_id: event})._noted()
            case ApprovalAnswered():
                left = {i: other for i, other in self.pending.items() if i != event.approval_id}
                answers = {**self.answers, event.approval_id: event}
                return changed(self, answers=answers, pending=left)._noted()
            case Recalled():
                return changed(self, recalled=event.items)
            case Compacted():
                turns = self.left if event.left is None else event.left.behind(self.left)
                summary = event.summary or self.summary
                return changed(self, dropped_turns=event.dropped_turns, summary=summary, left=turns)
            case ModelAsked() | ModelAnswered() | ModelFailed():
                return self._after_model(event)
            case ToolsWithheld():
                return changed(self, withheld=event.tools)
            case ToolsOffered():
                return self._after_offer(event)
            case ResultReduced():
                return changed(self, exchanges=tuple(e.with_reduced(event) for e in self.exchanges))
            case Planned():
                return changed(self, plan=event.goals, plan_needs=event.needs)
            case ToolIntended() | ToolReturned():
                return self._after_tool(event)
            case SubRunStarted() | SubRunChanged() | SubRunEnded():
                children, ledger = after(self.children, self.ledger, event)
                return changed(self, children=children, ledger=ledger)._noted()
            case Coordinated() | PlannerDecided():
                return changed(self, exchanges=after_answer(self.exchanges, event))
            case SampleSelected():
                return changed(self, exchanges=after_selection(self.exchanges, event))
            case StepEnded():
                exchanges = after_step(self.exchanges, event)
                return changed(self, step=event.step + 1, attempt=0, exchanges=exchanges)
            case RunEnded():
                return changed(self, status=event.status, answer=event.answer, error=event.error, pending={})
        return self

    def _noted(self) -> RunState:
        """Whether it waits for a person, from what is pending here and in its sub-runs."""
        return changed(self, status="waiting" if self.pending or all_wait(self.children) else "running")

    def _after_model(self, event: ModelAsked | ModelAnswered | ModelFailed) -> RunState:
        key = f"model:{event.step}:{event.attempt}"
        if isinstance(event, ModelAsked):
            amount = Amount(tokens=event.reserved_tokens, cost=event.reserved_cost)
            return changed(
                self, attempt=max(self.attempt, event.attempt), ledger=self.ledger.hold(key, amount)
            )
        if isinstance(event, ModelFailed):
            # It may have worked before it broke; with no report, all that was held counts.
            held = self.ledger.held.get(key, Amount()) if event.started else Amount()
            return changed(self, ledger=self.ledger.settle(key, held))
        state = changed(
            self,
            ledger=self.ledger.settle(key, consumed(event.usage)),
            totals=self.totals.plus(event.usage),
        )
        if event.purpose in ("summarise", "tool", "remember", "reduce"):
            return state
        return changed(state, exchanges=after_answer(self.exchanges, event))

    def _after_offer(self, event: ToolsOffered) -> RunState:
        if not event.told:
            return changed(self, offered=event.tools, offered_first=event.tools)
        return changed(self, offered=event.tools, offers_told=(*self.offers_told, (event.step, event.told)))

    def _after_tool(self, event: ToolIntended | ToolReturned) -> RunState:
        place = (event.step, event.index)
        key = f"tool:{event.step}:{event.index}"
        if isinstance(event, ToolIntended):
            amount = Amount(tool_calls=1, cost=event.reserved_cost)
            return changed(self, intents={**self.intents, place: event}, ledger=self.ledger.hold(key, amount))
        ledger = self.ledger
        if place in self.intents and key in ledger.held:
            ledger = ledger.settle(key, Amount(tool_calls=1, cost=event.cost))
        exchanges = after_result(self.exchanges, event)
        intents = {p: intent for p, intent in self.intents.items() if p != place}
        return changed(self, exchanges=exchanges, intents=intents, ledger=ledger)


def _open(state: RunState) -> tuple[Exchange, ...]:
    return tuple(e for e in state.exchanges if e.outcome is None)


def _closed(state: RunState) -> tuple[Exchange, ...]:
    return tuple(e for e in state.exchanges if e.outcome is not None)


def begin(record: Record) -> RunState:
    """The state after a run's first event."""
    event = record.event
    if not isinstance(event, RunStarted):
        raise ValueError(f"run {record.run_id!r} begins with {record.kind}")
    return RunState(
        run_id=record.run_id,
        spec=decode(AgentSpec, dict(event.agent)),
        goal=event.goal,
        tenant=event.tenant,
        media=event.media,
        history=event.history,
        inherited=event.inherited,
        objective=event.objective,
        data_label=event.data_label,
        forked_from=event.forked_from,
        priority=event.priority,
        steps_behind=event.steps_behind,
        parent=event.parent,
        traceparent=event.traceparent,
        foreground=event.foreground,
        started_s=record.at_s,
        sequence=record.sequence,
        clock_s=record.clock_s,
        ledger=Ledger(budget=event.budget),
    )


def fold(records: Iterable[Record]) -> RunState:
    """The state that a whole stream of records adds up to. Raises ValueError on an empty one."""
    state: RunState | None = None
    for record in records:
        state = begin(record) if state is None else state.apply(record)
    if state is None:
        raise ValueError("a run without events has no state")
    return state
