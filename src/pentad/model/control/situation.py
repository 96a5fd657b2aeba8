"""Situation: all that one joint choice is made from, as a value that is written down and read back.

Whoever has the situation of a decision can make it once more, or ask what another policy would have done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from pentad.errors import InvalidRequest
from pentad.execution.backend import Capabilities
from pentad.model.prices import FREE, Price
from pentad.model.routing.base import Candidate, RouterInput
from pentad.model.routing.speed import Speed
from pentad.types import Budget, Hints, Objective, Request, RunContext, Sampling

PART = "situation"
"""Name of the part of a decision that holds it."""
CONTEXT = "context="
"""In a way's name, in front of the tokens that its context is reduced to."""
_CHARS = 4
"""Of a token, where the words themselves are not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of asking: how an agent's strategy spends tokens on a call."""

    name: str = ""
    prompt_tokens: int
    max_tokens: int | None = None
    """Of one answer, as it was asked for."""
    expected_tokens: int | None = None
    """Of one answer, where its sender says so."""
    samples: int = 1
    reduced: bool = False
    """Whether its context is reduced, so that it may know less than was asked."""

    @property
    def whole(self) -> str:
        """The name of the same way with its whole context."""
        return self.name.partition(CONTEXT)[0].strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How one way of asking one model has gone for one kind of task."""

    right: float = 0.0
    wrong: float = 0.0
    tokens: float = 0.0
    """Mean length of an answer; 0 while none has ended."""
    spread: float = 0.0
    """Mean distance of lengths from it."""
    answers: int = 0
    """How many have ended, judged or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One served model that may and can serve the request."""

    name: str
    context_length: int
    remote: bool = False
    price: Price = FREE
    quality: float | None = None
    speed: Speed | None = None
    waiting: float = 0.0
    running: float = 0.0
    joules_per_token: float = 0.0
    """Measured; 0 where nobody meters it."""
    slower: float = 1.0
    """How many times what was predicted its latest answers took."""
    dearer: float = 1.0
    """How many times what was predicted they cost."""
    cached_tokens: int = 0
    """Of the prompt, those that its cache likely holds: it served the run's last call."""
    records: Mapping[str, Record] = field(default_factory=dict)
    """By way of asking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known when a model call is about to be made."""

    task: str
    """Kind of task that success is counted by."""
    ways: tuple[Way, ...]
    arms: tuple[Arm, ...]
    objective: Objective = field(default_factory=Objective)
    budget: Budget = field(default_factory=Budget)
    steps_behind: int = 0
    """Calls of the run that follow this one, one after the other."""
    priority: int = 0
    data_label: str | None = None
    last: tuple[str, str] | None = None
    """Model and way of the latest choice for such a task and objective."""
    draw: float = 1.0
    """In [0, 1); below the share of trials, something less known is tried."""
    alarm: str = ""
    """Why predictions are not trusted now; empty while they are."""
    now_s: float = 0.0

    def to_json(self) -> str:
        """As `of` reads it back, to the last bit."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def of(cls, text: str) -> Situation:
        """The situation of a decision's part. Raises InvalidRequest for anything else."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise InvalidRequest(f"a recorded decision cannot be read: {error}") from None

    def routing(self) -> RouterInput:
        """The same as a router sees it; the prompt is made up, as long as the real one."""
        way = self.ways[0]
        context = RunContext(
            objective=self.objective,
            budget=self.budget,
            data_label=self.data_label,
            hints=Hints(remaining_steps=self.steps_behind or None, output_tokens=way.expected_tokens),
        )
        request = Request(
            id="replayed",
            model="auto",
            text="x" * (_CHARS * way.prompt_tokens),
            sampling=Sampling(max_tokens=way.max_tokens, n=way.samples),
            context=context,
        )
        return RouterInput(
            request=request,
            candidates={arm.name: _candidate(arm) for arm in self.arms},
            default=self.arms[0].name,
            now_s=self.now_s,
        )


def _candidate(arm: Arm) -> Candidate:
    return Candidate(
        can=Capabilities(model=arm.name, context_length=arm.context_length, remote=arm.remote),
        price=arm.price,
        quality=arm.quality,
        load={"waiting": arm.waiting, "running": arm.running},
        speed=arm.speed,
    )
