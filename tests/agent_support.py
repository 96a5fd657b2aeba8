"""What agent tests share: a runtime over a scripted model, followed to the end."""

from __future__ import annotations

import asyncio
import json
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pentad.agent.events import Record
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool, Toolbox, ToolContext
from pentad.choice import Choice
from pentad.testing.agents import scripted_models
from pentad.testing.backends import ScriptedBackend, Turn
from pentad.types import ToolCall

T = TypeVar("T")
FREE = Choice(name="react", options={"max_plan": 0})
"""ReAct without a plan: the script is then exactly the steps."""


def run(work: Awaitable[T], timeout_s: float = 20.0) -> T:
    """The result of an awaitable, in an event loop of its own, within a bound."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout_s):
            return await work

    return asyncio.run(bounded())


def call(name: str, ident: str = "c1", **arguments: Any) -> ToolCall:
    """A tool call as a model makes it."""
    return ToolCall(id=ident, name=name, arguments=json.dumps(arguments))


def spec(**fields: Any) -> AgentSpec:
    """An agent that plans nothing unless told to."""
    return AgentSpec(**{"name": "tester", "planner": FREE, **fields})


def context(**fields: Any) -> ToolContext:
    """Where a tool call comes from, for tools called directly."""
    made = {"key": "run:1:0", "run_id": "run", "tenant": "t", "agent": "a"}
    return ToolContext(**{**made, "deadline_s": time.monotonic() + 30, **fields})


class Harness:
    """A runtime, its scripted model and its journal."""

    def __init__(
        self, path: pathlib.Path, turns: Sequence[Turn], tools: Sequence[Tool] = (), **options: Any
    ) -> None:
        names = ("context_length", "repeat", "embedder", "price", "media")
        self.models, self.backend = scripted_models(
            turns, **{name: options.pop(name) for name in names if name in options}
        )
        on_commit: Callable[[str], None] | None = options.pop("on_commit", None)
        journal = {name: options.pop(name) for name in ("retention",) if name in options}
        journal |= {name: options[name] for name in ("wall", "clock") if name in options}
        name = options.pop("journal", "journal.db")
        self.journal = Journal(path / name, on_commit=on_commit, **journal)
        self.runtime = AgentRuntime(self.models, self.journal, toolbox=Toolbox(tools), **options)

    async def work(self, agent: AgentSpec, goal: str = "do it", **options: Any) -> RunState:
        """The state at the end of a fresh run."""
        run_id = await self.runtime.start(agent, goal, **options)
        return await self.runtime.wait(run_id, tenant=options.get("tenant", "default"))

    def records(self, run_id: str) -> list[Record]:
        """What is in the journal of a run."""
        return self.journal.read(run_id)


@asynccontextmanager
async def harness(
    path: pathlib.Path, turns: Sequence[Turn], tools: Sequence[Tool] = (), **options: Any
) -> AsyncIterator[Harness]:
    """A harness that closes, and whose journal is sound at the end."""
    made = Harness(path, turns, tools, **options)
    try:
        yield made
        assert made.journal.check_integrity() == []
    finally:
        await made.runtime.close()


__all__ = ["FREE", "Harness", "ScriptedBackend", "call", "context", "harness", "run", "spec"]
