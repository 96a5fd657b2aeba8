"""AgentRuntime: starts, follows, resumes and cancels runs. One per process."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pentad.agent.admission import Admission
from pentad.agent.approval import answered
from pentad.agent.budget import narrower
from pentad.agent.catalogue import AgentCatalogue
from pentad.agent.codec import encode
from pentad.agent.embedding import relevance_of
from pentad.agent.events import RunStarted
from pentad.agent.fork import forked
from pentad.agent.journal import Journal
from pentad.agent.journal_store.base import JournalUnavailable
from pentad.agent.limits import RuntimeLimits
from pentad.agent.memories import Memories
from pentad.agent.ports import ModelPort
from pentad.agent.reader import RunReader
from pentad.agent.resumer import Resumer
from pentad.agent.resumption import generators, resumable
from pentad.agent.run import Surroundings
from pentad.agent.run_hold import RunHold
from pentad.agent.run_places import Tracing
from pentad.agent.run_status import UNFINISHED
from pentad.agent.run_tasks import RunTasks
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState, fold
from pentad.agent.tool_places import ToolPlaces
from pentad.agent.tools.base import Toolbox
from pentad.agent.tools.logins import Logins
from pentad.agent.tools.pins import ToolPins
from pentad.agent.toolset import Toolset
from pentad.agent.unattended import cancel_unattended
from pentad.agent.worker import Worker
from pentad.content import Media
from pentad.errors import Conflict
from pentad.model.objectives import refuse_unenforced
from pentad.tracing.context import CURRENT, TRACEPARENT, TraceContext, outgoing
from pentad.types import Budget, Clock, Message, Objective

_LOG = logging.getLogger(__name__)
_AGAIN_S = 1.0
"""How long what needs the journal waits for it before the next look."""
_JOINING_S = 0.02


class AgentRuntime(RunReader):
    """Runs agents, each as one task, each step of it journaled.

    Args:
        models: what the agents think with.
        journal: where every event goes first; the runtime closes it.
        agents: agents that can be started by name; a catalogue may change while runs go on.
        toolbox: tools that agents may name besides the built-in ones; may grow while runs go on.
        memory: long-term memory of agents that ask for it.
        limits: how much at once, and what agent files may start.
        tracing: what is recorded of runs in traces; None where none are exported.
        clock: monotonic, for durations; wall: seconds since 1970, for dates.
    """

    def __init__(
        self,
        models: ModelPort,
        journal: Journal,
        *,
        agents: AgentCatalogue | Mapping[str, AgentSpec] | None = None,
        toolbox: Toolbox | None = None,
        memory: Memories | None = None,
        limits: RuntimeLimits | None = None,
        tracing: Tracing | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self.agents = (
            agents if isinstance(agents, AgentCatalogue) else AgentCatalogue(built_in=dict(agents or {}))
        )
        self.toolbox = toolbox or Toolbox()
        super().__init__(journal)
        self._limits = limits = limits or RuntimeLimits()
        self._around = Surroundings(
            models=models,
            journal=journal,
            stalls=self._stalls,
            relevance=relevance_of(models),
            publish=self._hub.publish,
            clock=clock,
            wall=wall,
            tool_places=ToolPlaces(tenants=limits.tenants, share=limits.tenant_share),
            tracing=tracing,
        )
        self._tools = Toolset(
            self.toolbox,
            models,
            memory,
            pins=ToolPins(self._limits.approvals_path),
            logins=Logins(self._limits.logins_path),
            commands=self._limits.mcp_commands,
            files=self.agents.tool_files,
        )
        self._tasks = RunTasks()
        hold = RunHold(models, above=limits.hold_runs_above, most_s=limits.hold_runs_s, clock=clock)
        self._worker = Worker(self._around, self._tools, memory, limits.deny_tools, self._tasks, hold)
        self._admission = Admission(models, self._tools, limits)
        self.agents.check = self._admission.agent
        self._resumer = Resumer(self._around, self._admission, self._worker, self._tasks)

    async def start(
        self,
        agent: AgentSpec | str,
        goal: str,
        *,
        model: str | None = None,
        tenant: str = "default",
        media: Sequence[Media] = (),
        history: Sequence[Message] = (),
        objective: Objective | None = None,
        budget: Budget | None = None,
        data_label: str | None = None,
        priority: int = 0,
        steps_behind: int | None = None,
        foreground: bool = False,
    ) -> str:
        """Begins a run and returns its id at once; `events` follows it.

        Args:
            agent: a spec, or the name of one of `agents`.
            model: in place of the agent's.
            media: what the goal shows beside its text; kept for as long as the prompts of its data label.
            history: the conversation before, oldest first; text only.
            objective, budget, data_label: for this run; a budget can only narrow the agent's.
            priority, steps_behind: see `RunStarted`.
            foreground: someone follows it here; `resume_all` of another process leaves it alone.

        Raises:
            UnknownName: no such agent, tool, planner or coordinator. Overloaded: too many runs at work.
            ModelNotFound: no such model. InvalidRequest: the goal is empty or too long, or an option
            does not fit.
        """
        spec = await self._spec(agent)
        if model is not None:
            spec = replace(spec, model=self._admission.model(model))
        self._admission.goal(goal)
        self._admission.agent(spec)
        run_id = _new_id()
        aim = objective or spec.objective
        refuse_unenforced(aim, self._around.models.enforces)
        limit = narrower(narrower(spec.budget, self._limits.budget), budget or Budget())
        # What a run aims for in whole binds it as a budget does.
        limit = narrower(limit, Budget(wall_s=aim.deadline_s, cost=aim.max_cost))
        started = RunStarted(
            agent=encode(spec),
            goal=goal,
            tenant=tenant,
            media=tuple(media),
            history=tuple(history),
            objective=aim,
            budget=limit,
            data_label=data_label or spec.data_label,
            default_model=next(iter(generators(self._around.models)), ""),
            foreground=foreground,
            priority=priority,
            steps_behind=steps_behind,
            traceparent=outgoing().get(TRACEPARENT, ""),
        )
        with self._admission.place(tenant) as place:
            kept = started.media if self._journal.retention.keeps(started.data_label) else ()
            record = await self._journal.append(run_id, started, parts=kept)
            self._worker.begin(fold([record]), place.pop_all())
        return run_id

    def called_from(self, traceparent: str | None) -> None:
        """Notes where the asker of what follows in this task stands in a trace, while some are exported."""
        if self._around.tracing is not None and (caller := TraceContext.parse(traceparent)) is not None:
            CURRENT.set(caller)

    async def resume(self, run_id: str, *, tenant: str = "default", foreground: bool = False) -> None:
        """Takes up a run that no living process works on, with its sub-runs.

        Effects already made are not made again.

        Raises:
            NotFound, JournalDamaged. Conflict: it has ended, is being worked on, is a sub-run, or its
            model is not here.
            UnknownName: it uses tools that this process does not have; it is left as it is.
        """
        row = self._own(run_id, tenant)
        if row.parent is not None:
            root = self._journal.root(run_id)
            raise Conflict(
                f"run {run_id!r} is a sub-run and goes on with {root!r} only",
                hint=f"pentad runs resume {root}",
            )
        await self._resumer.resume(row, foreground=foreground)

    async def resume_all(self) -> list[str]:
        """Resumes every unfinished run that can be, oldest first, and returns their ids.

        Sub-runs go on with theirs. Runs that someone followed in a terminal are left alone; one that is
        damaged or whose model is not here is logged and left as it is. Until the runtime is closed it goes
        on looking, every few seconds, for runs of other processes that die, and for those that could not be
        had yet: the journal was not to be written, or the database still believed in who had them.
        """
        return await self._resumer.resume_all()

    async def answer(
        self,
        run_id: str,
        approval_id: str,
        *,
        approved: bool,
        note: str = "",
        content: Mapping[str, Any] | None = None,
        tenant: str = "default",
    ) -> None:
        """Tells a waiting run what a person decided; one that nobody works on is taken up first.

        What a sub-run asks may be answered at any of the runs above it too.

        Args:
            note: why. content: the values asked for, where it is no tool call that waits but its question.

        Raises NotFound; Conflict when it is answered, has ended or another process works on it.
        """
        self._own(run_id, tenant)
        asking, root = self._asking(run_id, approval_id), self._journal.root(run_id)
        if root not in self._tasks:
            try:
                await self.resume(root, tenant=tenant)
            except Conflict:
                if root not in self._tasks:  # else it was taken up just now
                    # An answer that came before says more than that the run has ended.
                    state = self.show(asking, tenant=tenant)
                    answered(state, approval_id, approved=approved, note=note, content=content)
                    raise
        while (run := self._tasks.run(asking)) is None:
            # The run that leads comes to its sub-runs in its own time.
            if root not in self._tasks:
                raise Conflict(f"run {asking!r} is not worked on any more", hint="look at the run")
            await asyncio.sleep(_JOINING_S)
        await run.approvals.answer(approval_id, approved=approved, note=note, content=content)

    async def fork(
        self,
        run_id: str,
        step: int,
        *,
        goal: str | None = None,
        model: str | None = None,
        tenant: str = "default",
        foreground: bool = False,
    ) -> str:
        """Begins a run that has done what `run_id` had before `step`, and goes on from there; its id.

        Effects of the copied steps are not made again. `goal` and `model` replace the old ones.

        Raises NotFound, JournalDamaged, ModelNotFound, Overloaded; InvalidRequest for a step that the
        run did not come to; UnknownName for tools that this process does not have.
        """
        self._own(run_id, tenant)
        if goal is not None:
            self._admission.goal(goal)
        records = forked(
            await asyncio.to_thread(self._journal.read, run_id),
            _new_id(),
            step=step,
            goal=goal,
            model=None if model is None else self._admission.model(model),
            foreground=foreground,
            traceparent=outgoing().get(TRACEPARENT, ""),
            clock=self._around.clock,
            wall=self._around.wall,
        )
        state = resumable(records, self._around.models)
        self._admission.agent(state.spec)
        with self._admission.place(tenant) as place:
            await self._journal.begin(records, run_id)
            self._worker.begin(state, place.pop_all())
        return state.run_id

    async def cancel(self, run_id: str, *, tenant: str = "default") -> None:
        """Ends a run, and with it the model stream and tools it waits for. Returns when it has ended.

        Raises NotFound; Conflict when it has already ended or another process works on it;
        JournalUnavailable when it ends only once the journal can be written.
        """
        row = self._own(run_id, tenant)
        if row.status not in UNFINISHED:
            raise Conflict(f"run {run_id!r} has already ended: {row.status}", hint="nothing to cancel")
        run, task = self._tasks.run(run_id), self._tasks.task(run_id)
        if run is None or task is None:
            await cancel_unattended(self._journal, run_id)
            return
        self._tasks.cancel(run_id)
        while not task.done():
            await asyncio.wait([task], timeout=_AGAIN_S)
            if not task.done() and self._stalls.why(run_id) is not None:
                raise JournalUnavailable(
                    f"run {run_id!r} is stopped, and is cancelled once the journal can be written",
                    hint="free space on the journal's disk",
                )
        if not run.begun:  # its task was cancelled before it could do anything
            await cancel_unattended(self._journal, run_id)

    async def wait(self, run_id: str, *, tenant: str = "default") -> RunState:
        """The run's state once it has ended; its place is free then for the next one."""
        run, task = self._tasks.run(run_id), self._tasks.task(run_id)
        if run is not None and task is not None and run.state.tenant == tenant:
            await asyncio.wait([task])
            if run.state.ended:
                return run.state
        # Another process has it, or this one has stopped working on it.
        return await super().wait(run_id, tenant=tenant)

    @property
    def active(self) -> int:
        """Runs being worked on now."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stops all work where it is, without ending any run: `resume_all` goes on with them."""
        self._admission.closing = True
        await self._resumer.stop()
        await self._tasks.stop()
        await self._tools.close()
        await asyncio.to_thread(self._journal.close)

    async def _spec(self, agent: AgentSpec | str) -> AgentSpec:
        return agent if isinstance(agent, AgentSpec) else await asyncio.to_thread(self.agents.get, agent)


def _new_id() -> str:
    return f"run_{uuid.uuid4().hex[:20]}"
