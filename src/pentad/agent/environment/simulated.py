"""Simulated worlds: held in memory, decided by a seed and the calls of a run, so that they are never lost."""

from __future__ import annotations

import copy
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.agent.environment.base import Ability, EnvironmentServices, Score, Snapshot
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.functions import tool
from pentad.agent.tools.invocation import parse
from pentad.errors import ToolFailed
from pentad.ranges import in_range

State = dict[str, Any]
"""All that can change in a world, as plain data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One call of a world's tools."""

    tool: str
    arguments: Mapping[str, Any]


def act(tool: str, **arguments: Any) -> Act:
    """That call."""
    return Act(tool=tool, arguments=arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be brought about in a world."""

    goal: str
    """As the agent is told it."""
    solution: tuple[Act, ...]
    """Calls that bring it about; what an oracle does."""


class SimulatedWorld(ABC):
    """A world whose state is data and whose tools change nothing else.

    A tool that fails (ToolFailed) has changed nothing. So the calls that succeeded, in their order, and the
    seed say all: a world that is opened anew for a run carries them out again and stands where it stood.

    Args:
        seed: decides everything that is left to chance.
    """

    task: Task
    state: State

    def __init__(self, seed: int) -> None:
        self.reset(seed)
        self._tools = {made.name: made for made in self.made()}

    @abstractmethod
    def begin(self, chance: random.Random) -> tuple[State, Task]:
        """Where the world begins, and what is to be done in it."""

    @abstractmethod
    def actions(self) -> Sequence[Callable[..., Any]]:
        """What can be done: typed coroutine functions with docstrings, as `@tool` takes them."""

    def made(self) -> Sequence[Tool]:
        """The tools of the actions; a world whose tools are no functions of ours makes them itself."""
        return [_inline(action) for action in self.actions()]

    @abstractmethod
    def score(self) -> Score:
        """How far the task is done, read from the state; 1 only when all of it is."""

    def tools(self, own: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """The agent's tools as they are, and the world's own, which win where names are the same."""
        return {**own, **self._tools}

    def observe(self) -> str:
        """The goal: everything else is found out by acting."""
        return self.task.goal

    def reset(self, seed: int) -> None:
        """The world that the seed makes, from its beginning."""
        self.state, self.task = self.begin(random.Random(seed))

    def snapshot(self) -> Snapshot:
        """The state, copied."""
        return copy.deepcopy(self.state)

    def restore(self, snapshot: Snapshot) -> None:
        """That state again."""
        self.state = copy.deepcopy(dict(snapshot))

    async def redo(self, state: RunState) -> None:
        """Carries out again what a run has done here so far."""
        context = ToolContext(
            key="", run_id=state.run_id, tenant=state.tenant, agent=state.spec.name, deadline_s=math.inf
        )
        for exchange in state.exchanges:
            for place, result in sorted(exchange.results.items()):
                wanted = exchange.calls[place]
                if result.status == "ok" and wanted.name in self._tools:
                    made = self._tools[wanted.name]
                    await made.call(parse(made, wanted.arguments), context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated(ABC):
    """Base of environments whose worlds are simulated: a subclass makes the world of its options.

    Cost: microseconds a call, and as many again when a run is resumed.
    """

    seed: int = 0
    """Decides the world and its task."""

    can: ClassVar[frozenset[Ability]] = frozenset({"reset", "snapshot", "score"})

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def world(self) -> SimulatedWorld:
        """The world at its beginning."""

    def check(self) -> None:
        """Raises InvalidRequest for a seed that is none."""
        in_range("seed", self.seed, least=0)

    async def open(self, services: EnvironmentServices) -> SimulatedWorld:
        """The world, with what the run has done in it so far."""
        world = self.world()
        await world.redo(services.state)
        return world


def refuse(text: str) -> ToolFailed:
    """What a world answers to an action that is impossible now; it has changed nothing."""
    return ToolFailed(text)


def _inline(action: Callable[..., Any]) -> Tool:
    """The tool of an action. It may be repeated: a result that was lost was lost with its world."""
    return tool(effects="none")(action)
