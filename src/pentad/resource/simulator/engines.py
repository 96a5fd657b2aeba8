"""SimulatedEngine: one engine of a world, with what a policy may know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pentad.execution.engine import Engine
from pentad.execution.spec import ModelSpec
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.runner import SimulatedRunner, StepTimes
from pentad.resource.step_shape import StepShape

PACE_CONTEXT = 512
"""Tokens of context at which the paces are taken that policies see."""


EngineState = Literal["spare", "starting", "ready", "draining"]


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


@dataclass(slots=True, kw_only=True)
class SimulatedEngine:
    """The real engine on a simulated device, beside the devices it takes and the requests it was given."""

    name: str
    engine: Engine
    runner: SimulatedRunner
    anew: Callable[[], Engine] | None = None
    """Makes the engine of a later cold start, so that nothing stays cached."""
    devices: tuple[str, ...] = ()
    weight: float = 1.0
    """Share of the requests that the plan gives it."""
    price_per_s: float = 0.0
    """Of all its devices."""
    power_w: float = 0.0
    cold_start_s: float = 0.0
    """From its start to its first step: its weights come from the disk."""
    state: EngineState = "ready"
    since_s: float = 0.0
    """When its devices were taken; of no meaning while it is spare."""
    held_s: float = 0.0
    """Time for which its devices were taken before, cold starts included."""
    stepping: bool = False
    served: int = 0
    in_flight: dict[str, RequestRecord] = field(default_factory=dict)
    """Given to it and not yet ended at this instant, those on their way to it included."""
    queued_tokens: int = 0
    """Their prompt tokens, of those without a first token."""
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

    def take(self, record: RequestRecord) -> None:
        """Counts a request that is given to it."""
        record.engine = self.name
        self.served += 1
        self.in_flight[record.item.id] = record
        self.queued_tokens += record.item.prompt_tokens

    def first_token(self, record: RequestRecord) -> None:
        """A request's prompt is computed."""
        self.queued_tokens -= record.item.prompt_tokens

    def end(self, record: RequestRecord, now_s: float) -> None:
        """A request is done with, whatever came of it; an engine that drains stops with its last one."""
        del self.in_flight[record.item.id]
        if not record.token_times_s:
            self.queued_tokens -= record.item.prompt_tokens
        if self.state == "draining" and not self.in_flight:
            self.give_devices_back(now_s)

    @property
    def up(self) -> bool:
        """Whether it has its devices."""
        return self.state != "spare"

    def up_s(self, until_s: float) -> float:
        """Time for which its devices were taken, up to an instant."""
        return self.held_s + (max(0.0, until_s - self.since_s) if self.state != "spare" else 0.0)

    def take_devices(self, now_s: float) -> None:
        """It is started, with nothing in its memory."""
        self.state, self.since_s = "starting", now_s
        if self.held_s and self.anew is not None:
            self.engine = self.anew()

    def give_devices_back(self, now_s: float) -> None:
        """It is stopped, with nothing left to do."""
        self.held_s, self.state = self.up_s(now_s), "spare"
