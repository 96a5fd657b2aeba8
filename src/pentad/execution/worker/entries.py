"""Entry: what a driver keeps of one sequence, so that another worker can go on with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pentad.execution.consumer import Consumer
from pentad.execution.request import SequenceStats, StepOutput, TokenRequest
from pentad.types import Decision

MOST_DEATHS = 2
"""Workers that may die under one sequence. The first is bad luck; the second may be its own doing."""


@dataclass(slots=True, eq=False)
class Entry:
    """One sequence on its way.

    request.prompt | drawn: what came out of all workers so far | to come
    """

    number: int
    group: int
    """Number of the first of those that came together."""
    request: TokenRequest
    consumer: Consumer
    drawn: list[int] = field(default_factory=list)
    scored: bool = False
    """Whether the scores of the prompt came out."""
    arrived_s: float = 0.0
    first_token_s: float | None = None
    deaths: int = 0
    """Workers that died while they had it."""

    def take(self, output: StepOutput, now_s: float) -> StepOutput:
        """The output as the consumer gets it, once it is noted."""
        self.drawn += [one.token for one in output.drawn]
        self.scored = self.scored or bool(output.prompt)
        if self.first_token_s is None and output.drawn:
            self.first_token_s = now_s
        if output.stats is not None and self.deaths:
            output = replace(output, stats=self._whole(output.stats))
        return output

    def rest(self) -> TokenRequest:
        """The request for what is still to come."""
        request = replace(self.request, generated=tuple(self.drawn))
        if self.scored:
            request = replace(request, sampling=replace(request.sampling, prompt_logprobs=None))
        return request

    def _whole(self, stats: SequenceStats) -> SequenceStats:
        """The statistics over all workers that had it."""
        decision = Decision(
            layer="execution",
            policy="supervisor",
            subject="worker",
            chosen="resume",
            candidates=(("resume", None), ("fail", None)),
            constraint=f"{self.deaths} of at most {MOST_DEATHS - 1} deaths",
            at_s=stats.arrived_s,
        )
        return replace(
            stats,
            arrived_s=self.arrived_s,
            scheduled_s=min(
                s for s in (stats.scheduled_s, self.first_token_s, stats.finished_s) if s is not None
            ),
            first_token_s=self.first_token_s,
            decisions=(*stats.decisions, decision),
        )
