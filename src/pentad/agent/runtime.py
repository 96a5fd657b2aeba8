"""AgentRuntime: starts, follows, resumes and cancels runs. One per process."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from pentad.agent.budget import narrower
from pentad.agent.codec import encode
from pentad.agent.events import Record, RunResumed, RunStarted
from pentad.agent.explain import Explanation, explain
from pentad.agent.following import Hub
from pentad.agent.journal import Journal
from pentad.agent.memory.base import Memory
from pentad.agent.ports import ModelPort
from pentad.agent.prompt_store import Prompt
from pentad.agent.rows import RunRow
from pentad.agent.run import Run, Surroundings
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState, fold
from pentad.agent.tools.approvals import Approvals
from pentad.agent.tools.base import Toolbox
from pentad.agent.toolset import Toolset
from pentad.agent.worker import Worker, ended, planner_for
from pentad.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    PentadError,
    Unavailable,
    UnknownName,
)
from pentad.types import Budget, Clock, Message, Objective

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeLimits:
    """What one runtime may hold, and hard limits that no agent file can widen."""

    max_runs: int = 64
    """Runs at work at once; more are refused with Overloaded."""
    max_goal_bytes: int = 262_144
    budget: Budget = field(default_factory=Budget)
    """Upper bound of every run's budget."""
    deny_tools: tuple[str, ...] = ()
    """Patterns of tools that no agent may call, besides what its own file denies."""
    mcp_commands: frozenset[str] = frozenset()
    """Executables that agent files may start as MCP servers, as they write them; empty starts none."""
    approvals_path: pathlib.Path | None = None
    """Where the approved tool lists of MCP servers are kept; None forgets them with the process."""


class AgentRuntime:
    """Runs agents, each as one task, each step of it journaled.

    Args:
        models: what the agents think with.
        journal: where every event goes first; the runtime closes it.
        agents: agents that can be started by name.
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
        agents: Mapping[str, AgentSpec] | None = None,
        toolbox: Toolbox | None = None,
        memory: Memory | None = None,
        limits: RuntimeLimits | None = None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self.agents = dict(agents or {})
        self.toolbox = toolbox or Toolbox()
        self._journal = journal
        self._limits = limits or RuntimeLimits()
        self._hub = Hub()
        self._around = Surroundings(
            models=models, journal=journal, publish=self._hub.publish, clock=clock, wall=wall
        )
        self._tools = Toolset(
            self.toolbox,
            models,
            memory,
            approvals=Approvals(self._limits.approvals_path),
            commands=self._limits.mcp_commands,
        )
        self._worker = Worker(self._tools, memory, self._limits.deny_tools)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    async def start(
        self,
        agent: AgentSpec | str,
        goal: str,
        *,
        tenant: str = "default",
        history: Sequence[Message] = (),
        objective: Objective | None = None,
        budget: Budget | None = None,
        data_label: str | None = None,
    ) -> str:
        """Begins a run and returns its id at once; `events` follows it.

        Args:
            agent: a spec, or the name of one of `agents`.
            history: the conversation before, oldest first.
            objective, budget, data_label: for this run; a budget can only narrow the agent's.

        Raises:
            UnknownName: no such agent, tool or planner. Overloaded: too many runs at work.
            InvalidRequest: the goal is empty or too long, or an option does not fit.
        """
        spec = self._spec(agent)
        if not goal.strip() or len(goal.encode("utf-8", "replace")) > self._limits.max_goal_bytes:
            raise InvalidRequest(
                f"the goal must be 1 to {self._limits.max_goal_bytes} bytes of text", param="goal"
            )
        self._check(spec)
        self._admit()
        run_id = f"run_{uuid.uuid4().hex[:20]}"
        limit = narrower(narrower(spec.budget, self._limits.budget), budget or Budget())
        started = RunStarted(
            agent=encode(spec),
            goal=goal,
            tenant=tenant,
            history=tuple(history),
            objective=objective or spec.objective,
            budget=limit,
            data_label=data_label or spec.data_label,
        )
        record = await self._journal.append(run_id, started)
        self._spawn(run_id, fold([record]))
        return run_id

    async def events(
        self, run_id: str, after: int = 0, *, tenant: str = "default"
    ) -> AsyncGenerator[Record, None]:
        """The run's records with a sequence above `after`, then each new one, until it has ended.

        Raises NotFound when the tenant has no such run.
        """
        self._own(run_id, tenant)
        async with aclosing(self._hub.follow(self._journal, run_id, after)) as records:
            async for record in records:
                yield record

    async def wait(self, run_id: str, *, tenant: str = "default") -> RunState:
        """The run's state once it has ended: the fold of its events."""
        async with aclosing(self.events(run_id, tenant=tenant)) as records:
            return fold([record async for record in records])

    async def resume(self, run_id: str, *, tenant: str = "default") -> None:
        """Takes up a run that no living process works on. Effects already made are not made again.

        Raises:
            NotFound, JournalDamaged. Conflict: it has ended or is being worked on.
            UnknownName: it uses tools that this process does not have; it is left as it is.
        """
        row = self._own(run_id, tenant)
        if row.status != "running":
            raise Conflict(f"run {run_id!r} has already ended: {row.status}", hint="start a new run")
        if run_id in self._tasks:
            raise Conflict(f"run {run_id!r} is already being worked on", hint="follow its events")
        self._admit()
        # Before it is claimed: a run with tools that only another program has is left to that one.
        self._check(fold(await asyncio.to_thread(self._journal.read, run_id)).spec)
        await self._journal.claim(run_id)
        state = fold(await asyncio.to_thread(self._journal.read, run_id))
        record = await self._journal.append(run_id, RunResumed(in_doubt=len(state.intents)))
        self._spawn(run_id, state.apply(record))

    async def resume_all(self) -> list[str]:
        """Resumes every unfinished run that can be, oldest first, and returns their ids.

        Runs of other living processes are left alone; a damaged one is logged and left as it is.
        """
        resumed = []
        for row in reversed(self._journal.runs(where="status = 'running'")):
            if row.id in self._tasks:
                continue
            try:
                await self.resume(row.id, tenant=row.tenant)
            except Overloaded:
                break
            except PentadError as error:
                _LOG.warning("run %s is not resumed: %s", row.id, error)
            else:
                resumed.append(row.id)
        return resumed

    async def cancel(self, run_id: str, *, tenant: str = "default") -> None:
        """Ends a run, and with it the model stream and tools it waits for. Returns when it has ended.

        Raises NotFound; Conflict when it has already ended or another process works on it.
        """
        row = self._own(run_id, tenant)
        if row.status != "running":
            raise Conflict(f"run {run_id!r} has already ended: {row.status}", hint="nothing to cancel")
        task = self._tasks.get(run_id)
        if task is None:
            await cancel_unattended(self._journal, run_id)
            return
        self._worker.cancel(run_id, task)
        await asyncio.wait([task])

    def list(
        self, *, tenant: str = "default", status: str | None = None, limit: int = 100
    ) -> Sequence[RunRow]:
        """The tenant's runs, newest first; with `status`, only those."""
        if status is None:
            return self._journal.runs(where="tenant = ?", values=(tenant,), limit=limit)
        return self._journal.runs(where="tenant = ? AND status = ?", values=(tenant, status), limit=limit)

    def show(self, run_id: str, *, tenant: str = "default") -> RunState:
        """What the run has come to. Raises NotFound, JournalDamaged."""
        self._own(run_id, tenant)
        return fold(self._journal.read(run_id))

    def explain(self, run_id: str, *, tenant: str = "default") -> Explanation:
        """Where the run's time, tokens and decisions went, by layer. Raises NotFound, JournalDamaged."""
        earlier = self._journal.earlier(self._own(run_id, tenant))
        return explain(self._journal.read(run_id), earlier)

    def prompts(self, run_id: str, *, tenant: str = "default") -> Sequence[Prompt]:
        """What each model call of the run was asked. Raises NotFound, JournalDamaged."""
        self._own(run_id, tenant)
        return self._journal.prompts(run_id)

    async def approve_tools(self, agent: AgentSpec | str) -> None:
        """Accepts what the agent's MCP servers list now, also tools that changed since last time."""
        await self._tools.approve(self._spec(agent))

    @property
    def active(self) -> int:
        """Runs being worked on now."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stops all work where it is, without ending any run: `resume_all` goes on with them."""
        self._closing = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._tools.close()
        await asyncio.to_thread(self._journal.close)

    def _spec(self, agent: AgentSpec | str) -> AgentSpec:
        if isinstance(agent, AgentSpec):
            return agent
        if agent not in self.agents:
            known = ", ".join(self.agents) or "none"
            raise UnknownName(f"no agent {agent!r}", hint=f"known: {known}", param="agent")
        return self.agents[agent]

    def _check(self, spec: AgentSpec) -> None:
        planner_for(spec)
        self._tools.check(spec)

    def _own(self, run_id: str, tenant: str) -> RunRow:
        row = self._journal.run(run_id)
        if row.tenant != tenant:
            raise NotFound(f"no run {run_id!r}")
        return row

    def _admit(self) -> None:
        if self._closing:
            raise Unavailable("the agent runtime is shutting down")
        if len(self._tasks) >= self._limits.max_runs:
            raise Overloaded(f"{len(self._tasks)} of {self._limits.max_runs} runs are at work")

    def _spawn(self, run_id: str, state: RunState) -> None:
        task = asyncio.create_task(self._worker.work(Run(self._around, state)), name=run_id)
        self._tasks[run_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(run_id, None))


async def cancel_unattended(journal: Journal, run_id: str) -> None:
    """Ends a run that no living process works on; needs neither models nor tools.

    Raises NotFound; Conflict when it has ended or another process works on it.
    """
    row = journal.run(run_id)
    if row.status != "running":
        raise Conflict(f"run {run_id!r} has already ended: {row.status}", hint="nothing to cancel")
    await journal.claim(run_id)
    state = fold(journal.read(run_id))
    await journal.append(run_id, ended("cancelled", state, "cancelled by request"))
