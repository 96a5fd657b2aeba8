"""What the runtime asks of an environment (coverage.md, interface 20)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from pentad.agent.events import Record
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.errors import Incompatible
from pentad.registry import known, load

Ability = Literal["reset", "snapshot", "score"]
Snapshot = Mapping[str, Any]
"""Where a world stands, as plain data; only the world that made it reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well it went in a world."""

    value: float
    """0 to 1."""
    about: str
    """What was counted, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentServices:
    """What a world is opened with."""

    state: RunState
    """The run that acts in it, as far as it has come: a world that is opened anew stands where it stood."""
    read: Callable[[str], Awaitable[Sequence[Record]]]
    """The records of another run of the same tenant. Raises NotFound, JournalDamaged."""


class World(Protocol):
    """One environment under way, for one run."""

    def tools(self, own: Mapping[str, Tool]) -> Mapping[str, Tool]:
        """The agent's tools as they act here, described as they are, and the world's own."""
        ...

    def observe(self) -> str:
        """What there is to see without doing anything; empty where nothing is."""
        ...

    def reset(self, seed: int) -> None:
        """Puts the world where it began; the seed decides all that is left to chance."""
        ...

    def snapshot(self) -> Snapshot:
        """Where the world stands now."""
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Puts the world where it stood; the same calls have the same results again."""
        ...

    def score(self) -> Score:
        """How well it has gone so far."""
        ...


class Environment(Protocol):
    """Opens worlds. Holds nothing itself."""

    can: ClassVar[frozenset[Ability]]
    """What its worlds can do besides acting; they refuse the rest (Incompatible)."""

    @property
    def name(self) -> str: ...

    def check(self) -> None:
        """Raises InvalidRequest for an option that must be given and is not."""
        ...

    async def open(self, services: EnvironmentServices) -> World:
        """A world for one run, standing where the run has come to."""
        ...


def cannot(environment: str, ability: Ability) -> Incompatible:
    """The refusal of what an environment cannot do, with those that can."""
    able = [name for name in known("environment") if ability in load("environment", name).can]
    return Incompatible(
        f"environment {environment!r} cannot {ability}",
        hint=f"environments that can: {', '.join(able) or 'none'}",
        param="environment",
    )
