"""AgentRuntime: starts, follows, resumes and cancels runs. One per process."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from pentad.agent.budget import narrower
from pentad.agent.catalogue import AgentCatalogue
from pentad.agent.codec import encode
from pentad.agent.embedding import relevance_of
from pentad.agent.events import RunResumed, RunStarted
from pentad.agent.fork import forked
from pentad.agent.journal import Journal
from pentad.agent.journal_view import JournalUnavailable
from pentad.agent.limits import RuntimeLimits
from pentad.agent.memory.base import Memory
from pentad.agent.ports import ModelPort
from pentad.agent.reader import RunReader
from pentad.agent.resumption import generators, resumable
from pentad.agent.run import Run, Surroundings
from pentad.agent.run_status import UNFINISHED
from pentad.agent.spec import AgentSpec
from pentad.agent.spec_check import check_strategies
from pentad.agent.state import RunState, fold
from pentad.agent.tools.base import Toolbox
from pentad.agent.tools.pins import ToolPins
from pentad.agent.toolset import Toolset
from pentad.agent.unattended import cancel_unattended
from pentad.agent.worker import Worker
from pentad.errors import (
    Conflict,
    InvalidRequest,
    ModelNotFound,
    PentadError,
    Unavailable,
)
from pentad.model.objectives import refuse_unenforced
from pentad.resource.tenant_quotas import TenantQuotas
from pentad.types import Budget, Clock, Message, Objective

_LOG = logging.getLogger(__name__)
_AGAIN_S = 1.0
"""How long what needs the journal waits for it before the next look."""


class AgentRuntime(RunReader):
    """Runs agents, each as one task, each step of it journaled.

    Args:
        models: what the agents think with.
        journal: where every event goes first; the runtime closes it.
        agents: agents that can be started by name; a catalogue may change while runs go on.
        toolbox: tools that agents may name besides the built-in ones; may grow while runs go on.
        memory: long-term memory of agents that ask for it.
        limits: how much at once, and what agent files may start.
        clock: monotonic, for durations; wall: seconds since 1970, for dates.
    """

    def __init__(
        self,
        models: ModelPort,
        journal: Journal,
        *,
        agents: AgentCatalogue | Mapping[str, AgentSpec] | None = None,
        toolbox: Toolbox | None = None,
        memory: Memory | None = None,
        limits: RuntimeLimits | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self.agents = (
            agents if isinstance(agents, AgentCatalogue) else AgentCatalogue(built_in=dict(agents or {}))
        )
        self.toolbox = toolbox or Toolbox()
        super().__init__(journal)
        self._limits = limits = limits or RuntimeLimits()
        self._shares = TenantQuotas(
            "runs at work",
            "server.max_runs",
            limit=limits.max_runs,
            tenants=limits.tenants,
            share=limits.tenant_share,
        )
        self._around = Surroundings(
            models=models,
            journal=journal,
            stalls=self._stalls,
            relevance=relevance_of(models),
            publish=self._hub.publish,
            clock=clock,
            wall=wall,
        )
        self._tools = Toolset(
            self.toolbox,
            models,
            memory,
            pins=ToolPins(self._limits.approvals_path),
            commands=self._limits.mcp_commands,
            files=self.agents.tool_files,
        )
        self.agents.check = self._check
        self._worker = Worker(self._tools, memory, self._limits.deny_tools, self._stalls)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._runs: dict[str, Run] = {}
        self._closing = False
        self._again: asyncio.Task[None] | None = None

    async def start(
        self,
        agent: AgentSpec | str,
        goal: str,
        *,
        model: str | None = None,
        tenant: str = "default",
        history: Sequence[Message] = (),
        objective: Objective | None = None,
        budget: Budget | None = None,
        data_label: str | None = None,
        foreground: bool = False,
    ) -> str:
        """Begins a run and returns its id at once; `events` follows it.

        Args:
            agent: a spec, or the name of one of `agents`.
            model: in place of the agent's.
            history: the conversation before, oldest first.
            objective, budget, data_label: for this run; a budget can only narrow the agent's.
            foreground: someone follows it here; `resume_all` of another process leaves it alone.

        Raises:
            UnknownName: no such agent, tool or planner. Overloaded: too many runs at work.
            ModelNotFound: no such model. InvalidRequest: the goal is empty or too long, or an option
            does not fit.
        """
        spec = await self._spec(agent)
        if model is not None:
            spec = replace(spec, model=self._served(model))
        self._check_goal(goal)
        self._check(spec)
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
            history=tuple(history),
            objective=aim,
            budget=limit,
            data_label=data_label or spec.data_label,
            default_model=next(iter(generators(self._around.models)), ""),
            foreground=foreground,
        )
        with self._admit(tenant) as place:
            record = await self._journal.append(run_id, started)
            self._spawn(run_id, fold([record]), place.pop_all())
        return run_id

    async def resume(self, run_id: str, *, tenant: str = "default", foreground: bool = False) -> None:
        """Takes up a run that no living process works on. Effects already made are not made again.

        Raises:
            NotFound, JournalDamaged. Conflict: it has ended, is being worked on or its model is not here.
            UnknownName: it uses tools that this process does not have; it is left as it is.
        """
        row = self._own(run_id, tenant)
        if row.status not in UNFINISHED:
            raise Conflict(f"run {run_id!r} has already ended: {row.status}", hint="start a new run")
        if run_id in self._tasks:
            raise Conflict(f"run {run_id!r} is already being worked on", hint="follow its events")
        with self._admit(tenant) as place:
            # Before it is claimed: a run with tools that only another program has is left to that one.
            self._check((await self._resumable(run_id)).spec)
            await self._journal.claim(run_id)
            state = await self._resumable(run_id)
            waiting = sum(asked.kind == "tool" for asked in state.pending.values())
            in_doubt = len(state.intents)
            resumed = RunResumed(in_doubt=in_doubt, waiting=waiting, foreground=foreground)
            record = await self._journal.append(run_id, resumed)
            self._spawn(run_id, state.apply(record), place.pop_all())

    async def resume_all(self) -> list[str]:
        """Resumes every unfinished run that can be, oldest first, and returns their ids.

        Runs of other living processes are left alone, and so are those that someone followed in a
        terminal; one that is damaged or whose model is not here is logged and left as it is. While the
        journal cannot be written it is tried again.
        """
        resumed = []
        for row in self._journal.unfinished():
            if row.id in self._tasks or not self._shares.fits(row.tenant):
                continue
            try:
                if (await asyncio.to_thread(self.show, row.id, tenant=row.tenant)).foreground:
                    continue
                await self.resume(row.id, tenant=row.tenant)
            except PentadError as error:
                _LOG.warning("run %s is not resumed: %s", row.id, error)
                if isinstance(error, JournalUnavailable) and self._again is None:
                    self._again = asyncio.create_task(self._resume_again())
            except Exception:  # whatever is wrong with one run, the others go on
                _LOG.exception("run %s is not resumed", row.id)
            else:
                resumed.append(row.id)
        return resumed

    async def _resume_again(self) -> None:
        await asyncio.sleep(_AGAIN_S)
        self._again = None
        await self.resume_all()

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

        Args:
            note: why. content: the values asked for, where it is no tool call that waits but its question.

        Raises NotFound; Conflict when it is answered, has ended or another process works on it.
        """
        self._own(run_id, tenant)
        if run_id not in self._runs:
            await self.resume(run_id, tenant=tenant)
        await self._runs[run_id].approvals.answer(approval_id, approved=approved, note=note, content=content)

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
            self._check_goal(goal)
        records = forked(
            await asyncio.to_thread(self._journal.read, run_id),
            _new_id(),
            step=step,
            goal=goal,
            model=None if model is None else self._served(model),
            foreground=foreground,
            clock=self._around.clock,
            wall=self._around.wall,
        )
        state = resumable(records, self._around.models)
        self._check(state.spec)
        with self._admit(tenant) as place:
            await self._journal.begin(records, run_id)
            self._spawn(state.run_id, state, place.pop_all())
        return state.run_id

    async def cancel(self, run_id: str, *, tenant: str = "default") -> None:
        """Ends a run, and with it the model stream and tools it waits for. Returns when it has ended.

        Raises NotFound; Conflict when it has already ended or another process works on it;
        JournalUnavailable when it ends only once the journal can be written.
        """
        row = self._own(run_id, tenant)
        if row.status not in UNFINISHED:
            raise Conflict(f"run {run_id!r} has already ended: {row.status}", hint="nothing to cancel")
        task = self._tasks.get(run_id)
        if task is None:
            await cancel_unattended(self._journal, run_id)
            return
        self._worker.cancel(run_id, task)
        while not task.done():
            await asyncio.wait([task], timeout=_AGAIN_S)
            if not task.done() and self._stalls.why(run_id) is not None:
                raise JournalUnavailable(
                    f"run {run_id!r} is stopped, and is cancelled once the journal can be written",
                    hint="free space on the journal's disk",
                )

    @property
    def active(self) -> int:
        """Runs being worked on now."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stops all work where it is, without ending any run: `resume_all` goes on with them."""
        self._closing = True
        tasks = [*self._tasks.values(), *([self._again] if self._again else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._tools.close()
        await asyncio.to_thread(self._journal.close)

    async def _spec(self, agent: AgentSpec | str) -> AgentSpec:
        return agent if isinstance(agent, AgentSpec) else await asyncio.to_thread(self.agents.get, agent)

    async def _resumable(self, run_id: str) -> RunState:
        return resumable(await asyncio.to_thread(self._journal.read, run_id), self._around.models)

    def _served(self, model: str) -> str:
        known = generators(self._around.models)
        if model not in known:
            raise ModelNotFound(f"no model {model!r}", hint=f"served: {', '.join(known)}", param="model")
        return model

    def _check_goal(self, goal: str) -> None:
        most = self._limits.max_goal_bytes
        if not goal.strip():
            raise InvalidRequest("the goal is empty", hint="say what the agent is to do", param="goal")
        if len(goal.encode("utf-8", "replace")) > most:
            raise InvalidRequest(
                f"the goal has more than {most} bytes",
                hint="put long texts into files that a tool reads",
                param="goal",
            )

    def _check(self, spec: AgentSpec) -> None:
        check_strategies(spec)
        self._tools.check(spec)

    def _admit(self, tenant: str) -> ExitStack:
        """A place for one more run of the tenant, given back on leaving unless the run keeps it."""
        if self._closing:
            raise Unavailable("the agent runtime is shutting down")
        place = ExitStack()
        place.enter_context(self._shares.hold(tenant))
        return place

    def _spawn(self, run_id: str, state: RunState, place: ExitStack) -> None:
        run = self._runs[run_id] = Run(self._around, state)
        task = asyncio.create_task(self._worker.work(run), name=run_id)
        self._tasks[run_id] = task

        def forget(_: asyncio.Task[None]) -> None:
            place.close()
            del self._tasks[run_id], self._runs[run_id]

        task.add_done_callback(forget)


def _new_id() -> str:
    return f"run_{uuid.uuid4().hex[:20]}"
