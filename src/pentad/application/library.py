"""Agent: an agent in a few lines of Python, with all that a served one has.

    from pentad.api import Agent, tool

    @tool(effects="none")
    def price(item: str) -> float:
        "What an item costs, in euros."
        return {"lamp": 40.0, "chair": 75.0}[item]

    async with Agent("shop", tools=[price]) as shop:
        result = await shop.run("What does a lamp cost?")
        print(result.answer)

Runs are journaled in the data folder, explained by `pentad runs explain`, and bound by budgets.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Self, cast

from pydantic import TypeAdapter, ValidationError

from pentad.agent.events import Event, Record
from pentad.agent.explain import Explanation
from pentad.agent.model_events import TextStreamed
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState, fold
from pentad.agent.sub_run_events import SubRunChanged
from pentad.agent.tool_events import ApprovalAsked
from pentad.agent.tools.base import Tool
from pentad.application.config import Settings
from pentad.application.config_loading import load_settings
from pentad.application.services import Services
from pentad.application.wiring import build
from pentad.choice import Choice
from pentad.errors import Conflict, NotFound, PentadError
from pentad.types import Budget, Message

if TYPE_CHECKING:
    # Type checkers know it without the package; Python itself has defaults from 3.13 on.
    from typing_extensions import TypeVar

    T = TypeVar("T", default=str)
else:
    from typing import TypeVar

    T = TypeVar("T")
Approve = Callable[[ApprovalAsked], bool | Awaitable[bool]]
"""Answers what a person is asked: whether the call may be made."""


def opened(settings: Settings | Mapping[str, Any] | None) -> AbstractAsyncContextManager[Services]:
    """What the settings, or those of the process, are served by; closed on leaving."""
    return build(settings if isinstance(settings, Settings) else load_settings(dict(settings or {})))


class RunFailed(PentadError):
    """A run ended without an answer, or with one that is not of the asked form. `state` tells the rest."""

    status = 500
    code = "run_failed"

    def __init__(self, message: str, state: RunState, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.state = state


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Generic[T]):
    """What a run came to."""

    answer: T
    state: RunState
    """The whole of it: steps, tool results, what it used."""

    @property
    def run_id(self) -> str:
        """Under which `pentad runs` finds it."""
        return self.state.run_id

    @property
    def tokens(self) -> int:
        """Of all its model calls, prompts included."""
        return self.state.totals.prompt_tokens + self.state.totals.completion_tokens


class Agent(Generic[T]):
    """An agent and what it runs on; open it with `async with`, then run it as often as you like.

    Args:
        name: 1 to 64 letters, digits, dots, dashes and underscores; or a whole AgentSpec, of which the
            other arguments then replace a part.
        instructions: what the model is told in the system's voice.
        model: a served model's name; empty takes the first of the settings.
        tools: functions made tools by `@tool`, or names of built-in tools.
        answer: the type of the answer: a dataclass, a pydantic model, or any that pydantic knows. The
            model then writes JSON of that form. Absent: text.
        planner: how it goes about a goal: a name, or name and options as in agent files.
        budget: hard limits of each run.
        ask: patterns of tools that must be approved, call by call.
        approve: who approves; without it a run waits for `pentad runs approve`, HTTP or the console.
        settings: of the process, as in pentad.yaml; ignored with `service`.
        service: what another agent, or the wiring, has opened; shared, and not closed here.

    Raises ValueError for a name or a number out of range; what opening raises, `wiring.build` tells.
    """

    def __init__(
        self,
        name: str | AgentSpec,
        *,
        answer: type[T] | None = None,
        instructions: str | None = None,
        model: str | None = None,
        tools: Sequence[Tool | str] = (),
        planner: str | Choice | None = None,
        budget: Budget | None = None,
        ask: Sequence[str] | None = None,
        approve: Approve | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
        service: Services | None = None,
    ) -> None:
        self._adapter: TypeAdapter[Any] | None = None if answer in (None, str) else TypeAdapter(answer)
        self._functions = [one for one in tools if isinstance(one, Tool)]
        names = tuple(one.name if isinstance(one, Tool) else one for one in tools)
        base = name if isinstance(name, AgentSpec) else AgentSpec(name=name)
        spec = replace(
            base,
            instructions=base.instructions if instructions is None else instructions,
            model=base.model if model is None else model,
            tools=(*base.tools, *names),
            planner=base.planner if planner is None else Choice.of(planner),
            budget=base.budget if budget is None else budget,
            ask=base.ask if ask is None else tuple(ask),
        )
        if self._adapter is not None:
            spec = replace(spec, answer_schema=self._adapter.json_schema())
        self.spec = spec
        """What it is, as an agent file would say it."""
        self._approve = approve
        self._settings = settings
        self._service = service
        self._undo = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as undo:
            if self._service is None:
                self._service = await undo.enter_async_context(opened(self._settings))
                undo.callback(setattr, self, "_service", None)
            toolbox = self._runtime.toolbox
            for one in self._functions:
                if one.name not in toolbox.names() or toolbox.get(one.name) is not one:
                    toolbox.add(one)
            self._undo = undo.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._undo.aclose()

    @property
    def service(self) -> Services:
        """What it runs on, for others to share. Raises Conflict where it is not open."""
        if self._service is None:
            raise Conflict(
                f"agent {self.spec.name!r} is not open", hint="write: async with Agent(...) as agent"
            )
        return self._service

    async def run(
        self,
        goal: str,
        *,
        history: Sequence[Message] = (),
        budget: Budget | None = None,
        tenant: str = "default",
    ) -> Result[T]:
        """The answer to a goal, once the run has ended. Cancelled with its caller.

        Args:
            history: the conversation before, oldest first.
            budget: narrower than the agent's, for this run.
            tenant: whose run it is; tenants see nothing of each other.

        Raises:
            RunFailed: it ended otherwise: refused, out of its budget or steps, failed, cancelled.
            InvalidRequest, Overloaded, ModelNotFound: it did not begin.
        """
        run_id = await self._start(goal, history, budget, tenant)
        async with aclosing(self._follow(run_id, tenant)) as records:
            return self._result(fold([record async for record in records if not record.live]))

    async def stream(
        self,
        goal: str,
        *,
        history: Sequence[Message] = (),
        budget: Budget | None = None,
        tenant: str = "default",
    ) -> AsyncGenerator[Event | TextStreamed, None]:
        """The run's events as they happen: `TextStreamed` piece by piece, tools, and `RunEnded` last.

        Closing the iterator cancels the run. Arguments and errors are those of `run`, but that a run
        without an answer raises nothing: its last event says so.
        """
        run_id = await self._start(goal, history, budget, tenant)
        async with aclosing(self._follow(run_id, tenant)) as records:
            async for record in records:
                yield record.event

    def run_sync(self, goal: str, **options: Any) -> Result[T]:
        """`run` where there is no event loop: opens the agent, runs it once and closes it."""

        async def once() -> Result[T]:
            async with self:
                return await self.run(goal, **options)

        return asyncio.run(once())

    def explain(self, run_id: str, *, tenant: str = "default") -> Explanation:
        """Where a run's time, tokens and decisions went, by layer. Raises NotFound."""
        return self._runtime.explain(run_id, tenant=tenant)

    @property
    def _runtime(self) -> AgentRuntime:
        agents = self.service.agents
        if agents is None:
            raise Conflict("this service has no agent runtime", hint="open it with pentad's own wiring")
        return agents

    async def _start(self, goal: str, history: Sequence[Message], budget: Budget | None, tenant: str) -> str:
        return await self._runtime.start(
            self.spec, goal, history=history, budget=budget, tenant=tenant, foreground=True
        )

    async def _follow(self, run_id: str, tenant: str) -> AsyncGenerator[Record, None]:
        """The run's records; what it asks is answered. A follower that leaves cancels the run."""
        ended = False
        try:
            async with aclosing(self._runtime.events(run_id, tenant=tenant, patient=True)) as records:
                async for record in records:
                    if self._approve is not None and isinstance(record.event, ApprovalAsked | SubRunChanged):
                        await self._answer(self._approve, run_id, tenant)
                    yield record
                ended = True
        finally:
            if not ended:
                with contextlib.suppress(Conflict, NotFound):  # it has ended meanwhile
                    await self._runtime.cancel(run_id, tenant=tenant)

    async def _answer(self, approve: Approve, run_id: str, tenant: str) -> None:
        """Answers what the run and its sub-runs ask now."""
        for _, asked in self._runtime.pending(run_id, tenant=tenant):
            said = approve(asked)
            approved = bool(await said if inspect.isawaitable(said) else said)
            with contextlib.suppress(Conflict, NotFound):  # somebody else was quicker
                await self._runtime.answer(run_id, asked.approval_id, approved=approved, tenant=tenant)

    def _result(self, state: RunState) -> Result[T]:
        if state.status != "answered":
            raise RunFailed(
                f"run {state.run_id} ended as {state.status}: {state.error or 'no answer'}",
                state,
                hint=f"pentad runs explain {state.run_id} tells more",
            )
        if self._adapter is None:
            return Result(answer=cast(T, state.answer), state=state)
        try:
            return Result(answer=self._adapter.validate_json(state.answer), state=state)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise RunFailed(
                f"run {state.run_id} answered what is not of the asked form: {first['msg']}",
                state,
                hint="a larger max_tokens leaves room for the whole; state.answer has what there is",
            ) from None
