"""Runs as wholes: who has little left of its run goes first, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.scheduling import RunService, SchedulerInput, SequenceView
from pentad.ranges import in_range
from pentad.resource.scheduling.base import Urgency, todo_tokens
from pentad.resource.scheduling.sarathi import Sarathi

_NEW: RunService = RunService()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow(Sarathi):
    """Steps as `sarathi`, ordered by what is left of the run that a request belongs to.

    A request is wanted `stretch` times as late after its arrival as it and the rest of its run will take: a
    run of seconds is not held up by one of minutes, and a long one is overtaken only by requests that come
    within that time. What is left: the tokens that the cache does not supply, and for each step that is to
    come what the run's steps have taken so far. Where nobody tells how many are to come, a run is expected
    to take as long again as it has taken. A deadline, shared out over the steps that are left (what an early
    step does not use is the next ones'), makes a request wanted no later than its share ends. Shares of
    tenants, priorities and preemption are sarathi's. Exactness: lossless.

    Source: least attained service over all calls of a program (Autellix, Luo et al., 2025); critical path
    (Kelley, 1961); a static bound on the stretch in the place of queues with quanta, so that no order flips
    while it waits. Our difference: service is seconds of steps, and known remaining steps count before
    attained ones.
    """

    stretch: float = 20.0
    """How many times as long as it takes itself the rest of a run may be made to wait."""
    longest_s: float = 300.0
    """A request is overtaken by none that arrives later than that after it."""

    _by_arrival: ClassVar[bool] = False

    def __post_init__(self) -> None:
        Sarathi.__post_init__(self)
        in_range("stretch", self.stretch, least=0)
        in_range("longest_s", self.longest_s, above=0)

    @property
    def name(self) -> str:
        return "workflow"

    def _order(self, state: SchedulerInput) -> Callable[[SequenceView], Urgency]:
        aging_s = self.aging_s
        token_s = state.pace.prompt_token_s

        def urgency(seq: SequenceView) -> Urgency:
            rest_s = todo_tokens(seq) * token_s + self._rest_s(seq, state)
            lead_s = min(self.stretch * rest_s, self.longest_s)
            hints = seq.turn_hints
            if hints is not None and hints.slack_s is not None:
                lead_s = min(lead_s, hints.slack_s)
            wanted_s = seq.arrived_s + lead_s
            if aging_s is None:
                return (seq.priority, wanted_s)
            return (wanted_s + seq.priority * aging_s, seq.arrived_s)

        return urgency

    def _rest_s(self, seq: SequenceView, state: SchedulerInput) -> float:
        """What the run is expected to take of this engine behind the request."""
        run_id = seq.context.run_id
        run = _NEW if run_id is None else state.runs.get((seq.tenant, run_id), _NEW)
        hints = seq.turn_hints
        if hints is not None and hints.remaining_steps is not None:
            return hints.remaining_steps * run.seconds / max(1, run.requests - 1)
        return run.seconds
