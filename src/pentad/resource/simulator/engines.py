"""SimulatedEngine: one engine of a world, with what a policy may know of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import ModelSpec
from pentad.execution.steady import SteadySteps
from pentad.resource.placement.plan import Role
from pentad.resource.simulator.handovers import ReceivedBlocks
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.runner import SimulatedRunner, StepTimes
from pentad.resource.step_shape import StepShape

PACE_CONTEXT = 512
"""Tokens of context at which the paces are taken that policies see."""


EngineState = Literal["spare", "starting", "ready", "draining", "failed"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast an engine is, from its step times."""

    prompt_token_s: float
    alone_s: float
    """Between the tokens of one sequence by itself."""
    full_s: float
    """The same with all slots taken."""
    slots: int

    @classmethod
    def of(cls, cost: StepTimes, slots: int) -> Pace:
        return cls(
            prompt_token_s=cost.seconds(StepShape.prefill(PACE_CONTEXT)) / PACE_CONTEXT,
            alone_s=cost.seconds(StepShape.decode(1, PACE_CONTEXT)),
            full_s=cost.seconds(StepShape.decode(slots, PACE_CONTEXT)),
            slots=slots,
        )

    def token_s(self, running: int) -> float:
        """Seconds between tokens with so many sequences running, in between by a straight line."""
        if self.slots < 2:
            return self.alone_s
        share = min(max(running - 1, 0) / (self.slots - 1), 1.0)
        return self.alone_s + share * (self.full_s - self.alone_s)


class StepTokens(Protocol):
    """What a series of steps gave one sequence."""

    @property
    def id(self) -> str: ...

    @property
    def tokens(self) -> Sequence[int]: ...


class Stepped(Protocol):
    """What a world needs of an engine: the real one, or one whose parts step at different times."""

    @property
    def limits(self) -> EngineLimits: ...

    @property
    def max_sequence_tokens(self) -> int: ...

    @property
    def has_work(self) -> bool: ...

    def add(self, request: TokenRequest, /) -> None: ...

    def step(self) -> Sequence[StepOutput]: ...

    def steady(self) -> SteadySteps | None: ...

    def take(self, steady: SteadySteps, count: int, /) -> Sequence[StepTokens]: ...

    def check_integrity(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class SimulatedEngine:
    """The real engine on a simulated device, beside the devices it takes and the requests it was given."""

    name: str
    engine: Stepped
    runner: SimulatedRunner
    anew: Callable[[], Stepped] | None = None
    """Makes the engine of a later cold start, so that nothing stays cached."""
    devices: tuple[str, ...] = ()
    memory_bytes: float = 0.0
    """Of weights and KV blocks, on all its devices."""
    weight: float = 1.0
    """Share of the requests that the plan gives it."""
    price_per_s: float = 0.0
    """Of all its devices."""
    power_w: float = 0.0
    host: str = ""
    """The machine that its devices belong to, where they are of one that can be rented."""
    spot: bool = False
    """Whether one of its devices may be taken back."""
    remote: bool = False
    """Whether one of its devices is somebody else's."""
    quality: float | None = None
    """Of the model that it computes, 0 to 1; None: nobody says."""
    role: Role = "both"
    """Which phase of its requests it computes."""
    received: ReceivedBlocks | None = None
    """Where keys and values of prompts come in that other engines have computed."""
    cold_start_s: float = 0.0
    """From its start to its first step: its weights come from the disk."""
    state: EngineState = "ready"
    since_s: float = 0.0
    """When its devices were taken; of no meaning while it is spare."""
    held_s: float = 0.0
    """Time for which its devices were taken before, cold starts included."""
    stepping: bool = False
    steady: SteadySteps | None = None
    """Steps that it is in the midst of and that are taken at once, when they are over or somebody comes."""
    leaves_s: float | None = None
    """When one of its devices goes, once that is announced."""
    past_uses: list[tuple[float, float]] = field(default_factory=list)
    """From when to when its devices were taken before."""
    leaving: bool = False
    """Whether one of its devices is about to go."""
    life: int = 0
    """How often it was lost; events of an earlier life mean nothing."""
    apart: bool = False
    """Whether each of its steps is simulated by itself."""
    served: int = 0
    in_flight: dict[str, RequestRecord] = field(default_factory=dict)
    """Given to it and not yet ended at this instant, those on their way to it included."""
    queued_tokens: int = 0
    """Their prompt tokens, of those without a first token."""
    committed_tokens: int = 0
    """Of their prompts and answers."""
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        self.pace = Pace.of(self.runner.cost, self.slots)

    @property
    def spec(self) -> ModelSpec:
        return self.runner.spec

    @property
    def slots(self) -> int:
        return self.engine.limits.max_sequences

    @property
    def running(self) -> int:
        return min(len(self.in_flight), self.slots)

    @property
    def waiting(self) -> int:
        return max(len(self.in_flight) - self.slots, 0)

    def take(self, record: RequestRecord, *, prefilled: bool = False) -> None:
        """Counts a request that is given to it; of one that was prefilled elsewhere no prompt waits."""
        record.engine = self.name
        self.served += 1
        self.in_flight[record.item.id] = record
        self.committed_tokens += record.item.prompt_tokens + record.item.output_tokens
        record.prompt_waits = not prefilled
        self.queued_tokens += 0 if prefilled else record.item.prompt_tokens

    def prompt_computed(self, record: RequestRecord) -> None:
        """A request's prompt is computed, or it is done with."""
        if record.prompt_waits:
            record.prompt_waits = False
            self.queued_tokens -= record.item.prompt_tokens

    def end(self, record: RequestRecord, now_s: float) -> None:
        """A request is done with, whatever came of it; an engine that drains stops with its last one."""
        del self.in_flight[record.item.id]
        self.committed_tokens -= record.item.prompt_tokens + record.item.output_tokens
        self.prompt_computed(record)
        if self.state == "draining" and not self.in_flight:
            self.give_devices_back(now_s)

    @property
    def up(self) -> bool:
        """Whether it has its devices."""
        return self.state not in ("spare", "failed")

    def up_s(self, until_s: float) -> float:
        """Time for which its devices were taken, up to an instant."""
        return self.held_s + (max(0.0, until_s - self.since_s) if self.up else 0.0)

    def uses(self, until_s: float) -> list[tuple[float, float]]:
        """From when to when its devices were taken, up to an instant."""
        return [*self.past_uses, (self.since_s, until_s)] if self.up else self.past_uses

    def _note_use(self, now_s: float) -> None:
        if self.up:
            self.past_uses.append((self.since_s, now_s))

    def take_devices(self, now_s: float) -> None:
        """It is started, with nothing in its memory."""
        self.state, self.since_s = "starting", now_s
        if self.held_s and self.anew is not None:
            self.engine = self.anew()

    def give_devices_back(self, now_s: float) -> None:
        """It is stopped, with nothing left to do."""
        self._note_use(now_s)
        self.held_s = self.up_s(now_s)
        self.state = "failed" if self.leaving else "spare"

    def lose_all(self, now_s: float) -> None:
        """It is gone, with its requests and all that it held."""
        self._note_use(now_s)
        self.held_s, self.state = self.up_s(now_s), "failed"
        self.in_flight.clear()
        self.queued_tokens = self.committed_tokens = 0
        self.stepping = False
        self.life += 1
        assert self.anew is not None, f"engine {self.name!r} cannot be made anew"
        self.engine = self.anew()
