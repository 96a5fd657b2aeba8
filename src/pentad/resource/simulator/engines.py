"""SimulatedEngine: one engine of a world, with what a policy may know of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pentad.execution.engine import Engine
from pentad.execution.spec import ModelSpec
from pentad.resource.simulator.report import RequestRecord
from pentad.resource.simulator.runner import SimulatedRunner, StepTimes
from pentad.resource.step_shape import StepShape

PACE_CONTEXT = 512
"""Tokens of context at which the paces are taken that policies see."""


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
    devices: tuple[str, ...] = ()
    weight: float = 1.0
    """Share of the requests that the plan gives it."""
    price_per_s: float = 0.0
    """Of all its devices."""
    power_w: float = 0.0
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

    def end(self, record: RequestRecord) -> None:
        """A request is done with, whatever came of it."""
        del self.in_flight[record.item.id]
        if not record.token_times_s:
            self.queued_tokens -= record.item.prompt_tokens
