"""Delegation: the sub-runs of one run under way, begun once, joined after a restart, ended with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pentad.agent.approval import WAITING
from pentad.agent.budget import carved, narrower
from pentad.agent.codec import encode
from pentad.agent.events import RunResumed, RunStarted
from pentad.agent.inheritance import inherited
from pentad.agent.journal import Journal, RunHeld
from pentad.agent.resumption import generators, resumable
from pentad.agent.run import Run
from pentad.agent.run_status import Unfinished
from pentad.agent.run_tasks import RunTasks
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState, fold
from pentad.agent.sub_run_events import Parent, SubRunChanged, SubRunEnded, SubRunStarted
from pentad.agent.sub_run_state import SubRun, after, all_wait
from pentad.agent.tools.base import MemberAnswer
from pentad.agent.unattended import cancel_unattended, sub_run_end
from pentad.errors import NotFound, PentadError, ToolFailed
from pentad.types import Budget, Decision, Objective

_CLAIM_TRIES, _CLAIM_AGAIN_S = 50, 0.1
"""How long another process may have a sub-run in hand, to answer or cancel it, before that is an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms a step gives out its tasks."""

    policy: str
    """The coordinator's name."""
    members: Mapping[str, AgentSpec]
    """Who may be given a task."""
    most: int
    """Tasks that the run may give out in all."""
    share: float
    """What each task gets of the budget that was left before the step's first, 0 to 1."""


class Delegation:
    """What one run does with the members of its team.

    The order of writing makes it exact: the run journals that the sub-run begins, and holds its
    budget, before the sub-run's own first event; the sub-run journals its end before the run does.
    Killed between any two, the same id is found again, and nothing that it did is done again.

    Args:
        run: the run that leads.
        tasks: where the sub-runs are worked on.
        work: works on a run to its end.
    """

    def __init__(self, run: Run, tasks: RunTasks, work: Callable[[Run], Coroutine[Any, Any, None]]) -> None:
        self._run = run
        self._tasks = tasks
        self._work = work
        self._noting = asyncio.Lock()
        self._waiting = ExitStack()
        self._waits = False
        self._broken: PentadError | None = None

    async def delegate(self, step: int, index: int, terms: Terms, member: str, task: str) -> MemberAnswer:
        """The member's answer to a task, once its run has ended.

        Args:
            step, index: the call that is answered; called again for the same one, the sub-run is joined.
            terms: what the sub-run may have of the budget.

        Raises ToolFailed for no such member, BudgetExceeded when nothing can be reserved; what keeps
        the sub-run from going on, which `check` raises again.
        """
        child = self._run.state.children.get((step, index))
        if child is None:
            child = await self._begun(step, index, terms, member, task)
        try:
            state = await self._joined(child, terms)
        except ToolFailed:
            raise
        except PentadError as error:
            self._broken = error
            raise
        return MemberAnswer(status=state.status, text=state.answer, error=state.error or "")

    def check(self) -> None:
        """Raises what kept a sub-run from going on: no result of that call, so nothing may follow."""
        if self._broken is not None:
            raise self._broken

    async def end(self) -> None:
        """Ends the sub-runs that are under way as cancelled; when it returns, all have ended."""
        for child in [child for child in self._run.state.children.values() if not child.ended]:
            if child.run_id in self._tasks:
                await asyncio.wait([self._tasks.cancel(child.run_id)])
            await self._note(await self._cancelled(child))

    async def _cancelled(self, child: SubRun) -> SubRunEnded:
        journal = self._run.around.journal
        try:
            state = fold(await self._run.read(child.run_id))
            if not state.ended:
                await self._claim(child.run_id)
                await self._run.insist(partial(_ended, journal, child.run_id))
                state = fold(await self._run.read(child.run_id))
        except NotFound:  # it never began
            return sub_run_end(child, None)
        return sub_run_end(child, state)

    async def stop(self) -> None:
        """Stops the work on sub-runs where it is; whoever resumes this run goes on with them."""
        self._waiting.close()
        under_way = [child.run_id for child in self._run.state.children.values() if not child.ended]
        await self._tasks.stop(under_way)

    async def _begun(self, step: int, index: int, terms: Terms, member: str, task: str) -> SubRun:
        state = self._run.state
        if member not in terms.members:
            raise ToolFailed(f"there is no member {member!r}; known: {', '.join(terms.members) or 'none'}")
        if len(state.children) >= terms.most:
            raise ToolFailed(f"{len(state.children)} tasks have been given out, and no more may be")
        left = self._left_at_start(step)
        budget = narrower(carved(left, terms.share), terms.members[member].budget)
        decision = Decision(
            layer="agent",
            policy=terms.policy,
            subject="assignment",
            chosen=member,
            candidates=tuple((name, None) for name in terms.members),
            constraint=_bound(budget, left),
            at_s=self._run.around.clock(),
        )
        event = SubRunStarted(
            step=step,
            index=index,
            run_id=f"{state.run_id}-{step}-{index}",
            agent=member,
            goal=task,
            budget=budget,
            decisions=(decision,),
        )
        made, _ = after({}, state.ledger, event)
        await self._run.reserve(made[step, index].held, event)
        return self._run.state.children[step, index]

    def _left_at_start(self, step: int) -> Budget:
        """What was left when the step gave out its first task, so that each gets the same share."""
        state = self._run.state
        ledger = state.ledger
        for child in state.children.values():
            if child.step == step and not child.ended:
                key = f"sub_run:{child.step}:{child.index}"
                ledger = replace(ledger, held={k: a for k, a in ledger.held.items() if k != key})
        return ledger.left(state.active_s)

    async def _joined(self, child: SubRun, terms: Terms) -> RunState:
        """The sub-run's state at its end; it is begun, or taken up, unless somebody here is at it."""
        run = self._tasks.run(child.run_id)
        if run is None:
            state = await self._taken_up(child, terms)
            if state.ended:
                return await self._over(child, state)
            run = Run(self._run.around, state, watcher=partial(self._told, child))
            await self._told(child, state)
            self._tasks.spawn(run, self._work(run))
        task = self._tasks.task(child.run_id)
        assert task is not None, "a run at work has a task"
        await asyncio.wait([task])
        if not run.state.ended:
            # Its work was stopped, by a shutdown or for want of the journal: so is ours.
            raise self._run.around.stalls.why(child.run_id) or asyncio.CancelledError
        return await self._over(child, run.state)

    async def _over(self, child: SubRun, state: RunState) -> RunState:
        if not self._run.state.children[child.step, child.index].ended:
            await self._note(sub_run_end(child, state))
        return state

    async def _taken_up(self, child: SubRun, terms: Terms) -> RunState:
        """The sub-run as its journal has it, claimed, with its first event if it has none."""
        around, journal = self._run.around, self._run.around.journal
        try:
            records = await self._run.read(child.run_id)
        except NotFound:
            if child.ended:
                raise ToolFailed(f"what {child.agent!r} answered has been removed") from None
            started = self._first_event(child, terms.members[child.agent])
            return fold([await self._run.insist(partial(journal.append, child.run_id, started))])
        if fold(records).ended:
            return fold(records)
        await self._claim(child.run_id)
        records = await self._run.read(child.run_id)
        if fold(records).ended:
            return fold(records)
        state = resumable(records, around.models)
        resumed = RunResumed(
            in_doubt=len(state.intents),
            waiting=sum(asked.outlives_process for asked in state.pending.values()),
            foreground=self._run.state.foreground,
        )
        return state.apply(await self._run.insist(partial(journal.append, child.run_id, resumed)))

    async def _claim(self, run_id: str) -> None:
        claim = partial(self._run.around.journal.claim, run_id)
        for _ in range(_CLAIM_TRIES):
            with suppress(RunHeld):
                return await self._run.insist(claim)
            await asyncio.sleep(_CLAIM_AGAIN_S)
        return await self._run.insist(claim)

    def _first_event(self, child: SubRun, spec: AgentSpec) -> RunStarted:
        lead = self._run.state
        if not spec.model:
            spec = replace(spec, model=lead.spec.model)
        return RunStarted(
            agent=encode(spec),
            goal=child.goal,
            tenant=lead.tenant,
            objective=spec.objective if spec.objective != Objective() else lead.objective,
            budget=child.budget,
            # The lead's label holds for what it hands on.
            data_label=lead.data_label or spec.data_label,
            default_model=next(iter(generators(self._run.around.models)), ""),
            foreground=lead.foreground,
            parent=Parent(run_id=lead.run_id, step=child.step, index=child.index),
            inherited=inherited(self._run.prompted) if spec.inherit == "conversation" else None,
            priority=lead.priority,
            steps_behind=1 + (lead.steps_behind or 0),  # the lead reads its answer
            traceparent=lead.traceparent,
        )

    async def _told(self, child: SubRun, state: RunState) -> None:
        """Notes that a sub-run waits for a person, or does not any more."""
        status = self._run.state.children[child.step, child.index].status
        if state.status in ("running", "waiting") and state.status != status:
            changed: Unfinished = "waiting" if state.status == "waiting" else "running"
            await self._note(
                SubRunChanged(step=child.step, index=child.index, run_id=child.run_id, status=changed)
            )

    async def _note(self, event: SubRunChanged | SubRunEnded) -> None:
        async with self._noting:
            state = self._run.state
            children, _ = after(state.children, state.ledger, event)
            await self._run.append(replace(event, waits=bool(state.pending) or all_wait(children)))
            self._pause(all_wait(self._run.state.children))

    def _pause(self, waits: bool) -> None:
        """Stops the run's clock while all that it has under way waits for a person."""
        if waits and not self._waits:
            self._waiting.enter_context(self._run.span("agent", WAITING))
            self._waiting.enter_context(self._run.paused())
        elif not waits and self._waits:
            self._waiting.close()
        self._waits = waits


async def _ended(journal: Journal, run_id: str) -> None:
    """Ends a run that nobody works on, unless a try that seemed to fail has done so."""
    if not fold(await asyncio.to_thread(journal.read, run_id)).ended:
        await cancel_unattended(journal, run_id)


def _bound(budget: Budget, left: Budget) -> str | None:
    """What the task may use, of what is left."""
    parts = [
        f"{getattr(budget, name):g} of {getattr(left, name):g} {unit}"
        for name, unit in (("tokens", "tokens"), ("cost", "money"), ("tool_calls", "tool calls"))
        if getattr(budget, name) is not None and getattr(left, name) is not None
    ]
    return ", ".join(parts) or None
