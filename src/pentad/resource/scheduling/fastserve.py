"""Skip-join multi-level feedback queues: who has had little goes first, who has had much waits behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.scheduling import SchedulerInput, SequenceView
from pentad.ranges import in_range
from pentad.resource.scheduling.base import StepBuilder, Urgency
from pentad.resource.scheduling.sarathi import Sarathi

_PROMPT_TOKEN_STEPS = 1 / 32
"""Decode steps that a token of a prompt counts for while nothing has been measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FastServe(Sarathi):
    """Steps as `sarathi`, ordered by queues: short answers are not held up by long ones, of whatever length.

    The quantum of queue i is `quantum_steps` x 2^i decode steps. A request joins the first queue whose
    quantum its prompt fits in (what the prefix cache supplies is free), so a long prompt skips those that
    it would be demoted from at once; each token of its answer is a step more, and moves it down in the end.
    Between any two tokens a waiting request takes the place of a running one of a lower queue. That one
    loses its slot and blocks, but its full blocks stay in the prefix cache until they are needed, so it
    goes on where it was, or computes again what was evicted.

    Starvation guard: a request that is `guard` times as old as the service that it has had rises by one
    queue, and by one more with every doubling of its age. A priority number counts as a queue. Deadlines and
    other hints do not change the order. Exactness: lossless.

    Source: FastServe (Wu et al., 2023, arXiv 2305.05920, sections 4.1 and 4.2). Our difference: the queue
    follows from what a request has had, so that nothing is kept between steps; the guard lifts by age rather
    than by the time since the last step; the cache's own order of eviction takes the place of the proactive
    swap, and with `--kv-store-bytes` blocks that runs return to are on the disk as well.
    """

    quantum_steps: float = 16.0
    """Quantum of the first queue, in decode steps; above 0."""
    queues: int = 8
    """How many there are; the last one's quantum never ends."""
    guard: float | None = 30.0
    """How many times its service a request may be old before it rises; None: never, which may starve."""

    _by_arrival: ClassVar[bool] = False

    def __post_init__(self) -> None:
        Sarathi.__post_init__(self)
        in_range("quantum_steps", self.quantum_steps, above=0)
        in_range("queues", self.queues, least=2, most=64)
        in_range("guard", self.guard, above=0)

    @property
    def name(self) -> str:
        return "fastserve"

    def _order(self, state: SchedulerInput) -> Callable[[SequenceView], Urgency]:
        pace = state.pace
        step_s = pace.least_s
        token_steps = pace.prompt_token_s / step_s if step_s else _PROMPT_TOKEN_STEPS
        keys: dict[str, Urgency] = {}

        def urgency(seq: SequenceView) -> Urgency:
            key = keys.get(seq.id)
            if key is None:
                had_steps = seq.fresh_tokens * token_steps + seq.num_generated
                queue = self._queue(had_steps) - self._lift(had_steps * step_s, state.now_s - seq.arrived_s)
                key = keys[seq.id] = (queue + seq.priority, seq.arrived_s)
            return key

        return urgency

    def _queue(self, had_steps: float) -> int:
        """The queue of a request that has had, or will have had with its prompt, so many steps; from 0."""
        queue = math.ceil(math.log2(max(1.0, had_steps / self.quantum_steps)))
        return min(queue, self.queues - 1)

    def _lift(self, had_s: float, age_s: float) -> int:
        """Queues by which a request rises for its age."""
        if self.guard is None or had_s <= 0:
            return 0
        return math.floor(math.log2(max(1.0, 2 * age_s / (self.guard * had_s))))

    def _rank(self, draft: StepBuilder, seq: SequenceView) -> float:
        return draft.urgency(seq)[0]
