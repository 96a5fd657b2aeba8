"""What the runtime asks of a memory (coverage.md, interface 3)."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from pentad.agent.ports import ModelPort
from pentad.types import Clock, Message

Kind = Literal["preference", "fact", "episode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose memories: never read or written across tenants."""

    tenant: str = "default"
    agent: str | None = None
    """Narrows to what this agent wrote; None reads what any agent of the tenant wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One remembered thing."""

    text: str
    kind: Kind = "fact"
    source: str = ""
    """Where it comes from, e.g. a run id."""
    importance: float = 0.5
    """0 to 1."""
    created_s: float | None = None
    """Seconds since 1970; None takes the store's clock."""
    expires_s: float | None = None
    """Seconds since 1970 from which it is no longer recalled."""
    id: str | None = None
    """Writing the same id again changes nothing; None gives it a fresh one."""
    derived_from: tuple[str, ...] = ()
    """Ids of the items that it was made of; it is forgotten with any of them."""
    superseded_by: str | None = None
    """Id of the item that holds in its place; it is kept, and no longer recalled."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What a strategy keeps beside the text, as JSON values."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("a memory needs text")
        if not 0 <= self.importance <= 1:
            raise ValueError(f"importance is {self.importance}, must be 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recollection:
    """An item that a query found, with the scores that brought it up. All scores are 0 to 1."""

    item: Item
    score: float
    similarity: float
    keyword: float
    recency: float
    level: str = ""
    """Where it was found, of memories that search several places one after the other."""


class Think(Protocol):
    """Asks the run's own model something on the side: journaled, within the run's budget."""

    async def __call__(self, system: str, text: str, max_tokens: int) -> str: ...


class Sample(Protocol):
    """As `Think`, but draws several answers to one question, at a temperature; they come back in order."""

    async def __call__(
        self, system: str, text: str, max_tokens: int, *, samples: int, temperature: float
    ) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """A run that begins, as a memory is asked what its prompts should have."""

    goal: str
    think: Think
    """Asks the run's model."""
    history: tuple[Message, ...] = ()
    """The conversation that the goal goes on with, without the goal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """A run that has ended, as a memory learns of it."""

    run_id: str
    goal: str
    answer: str
    answered: bool
    """Whether it ended with an answer of its own; else it failed, was refused or ran out of something."""
    think: Think
    """Asks the run's model."""
    sample: Sample
    """Draws several answers of the run's model."""
    history: tuple[Message, ...] = ()
    """The conversation before the goal."""
    steps: tuple[tuple[str, str], ...] = ()
    """What was seen and what was done then, in order; the first sees the goal alone, the others results."""
    recalled: tuple[str, ...] = ()
    """Ids of the items that were put into its context."""
    text: str = ""
    """Goal and answer in short, as an episode keeps them."""


class Memory(Protocol):
    """Keeps items and finds those that matter now. One per strategy and process; many runs share it."""

    async def write(self, item: Item, scope: Scope) -> str:
        """Keeps an item and returns its id."""
        ...

    async def query(self, cue: str, *, k: int, scope: Scope) -> list[Recollection]:
        """The `k` items that matter most to the cue, best first."""
        ...

    async def recall(self, occasion: Occasion, *, k: int, scope: Scope) -> list[Recollection]:
        """At most `k` items for a run that begins, best first; mostly a `query` for its goal."""
        ...

    async def item(self, ident: str, scope: Scope) -> Item | None:
        """The item of that id, also one that has expired or was superseded; None for none in the scope."""
        ...

    async def supersede(self, ident: str, item: Item, scope: Scope) -> str:
        """Keeps `item` in place of another, which is no longer recalled, and returns its id.

        Doing it again with the same `item.id` changes nothing. Raises NotFound: no such item in the scope.
        """
        ...

    async def forget(self, idents: Sequence[str], scope: Scope) -> list[str]:
        """Removes items with all their versions and all that was made of them, so that no trace is left.

        Returns the ids that went. Raises NotFound, and removes nothing, when one is not in the scope.
        """
        ...

    async def items(self, scope: Scope) -> list[Item]:
        """All that is kept of the scope, oldest first: also what has expired or was superseded."""
        ...

    async def learn(self, experience: Experience, scope: Scope) -> None:
        """Takes from a run that has ended what is worth keeping. Learning it again changes nothing."""
        ...

    async def consolidate(self, scope: Scope) -> int:
        """Removes what has expired or is kept twice; returns how many items went."""
        ...

    def close(self) -> None:
        """Lets go of files; nothing is asked of it after."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryServices:
    """What memories are opened with."""

    models: ModelPort
    embedder: str | None = None
    """Name of the served embedding model; None where there is none."""
    path: pathlib.Path | None = None
    """The file of memories that outlive the process; None where there is none."""
    wall: Clock = time.time
    """Seconds since 1970."""


class MemoryStrategy(Protocol):
    """How an agent remembers. Holds nothing itself: what is remembered is in the memory that it opens."""

    needs: ClassVar[frozenset[str]]
    """`embedder`, `file`: what of the services must be there."""

    @property
    def name(self) -> str: ...

    def open(self, services: MemoryServices) -> Memory:
        """The memory. Raises Conflict or Unavailable for a file that cannot be used."""
        ...
