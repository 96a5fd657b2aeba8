"""A batch as large as the objective bears, found by additive increase and multiplicative decrease."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pentad.execution.scheduling import SchedulerInput, StepPlan
from pentad.ranges import in_range
from pentad.resource.scheduling.sarathi import Sarathi


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimit:
    """What the search has come to."""

    tokens: float
    """Tokens of a step."""
    steps_total: int
    """Steps that the engine had done then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipper(Sarathi):
    """Steps as `sarathi`, of as many tokens as keep a step within `slo_s`, whatever model and machine.

    A full step within the objective makes the next one `increase` tokens larger; one that took longer makes
    it a tenth smaller (`backoff`). So the batch follows what contexts, other load and heat change. Where
    `slo_s` is not set, the shortest wish between tokens (`slo.inter_token_s`) of those that run is kept, and
    without any the step is the engine's. Exactness: lossless.

    Source: Clipper (Crankshaw et al., NSDI'17, section 4.3.1). Our difference: a batch is the tokens of a
    step, prompts and answers alike, not a number of queries; the search goes on for good, from where the
    engine's last plan left it.
    """

    slo_s: float | None = None
    """Longest step wished, in seconds; None: what those that run wish."""
    increase: int = 2
    """Tokens that a full step in time adds."""
    backoff: float = 0.9
    """Factor after a step that took longer."""
    first_tokens: int = 16
    """Tokens of the first step."""

    def __post_init__(self) -> None:
        Sarathi.__post_init__(self)
        in_range("slo_s", self.slo_s, above=0)
        in_range("increase", self.increase, least=1)
        in_range("backoff", self.backoff, least=0.1, most=0.99)
        in_range("first_tokens", self.first_tokens, least=1)

    @property
    def name(self) -> str:
        return "clipper"

    def plan(self, state: SchedulerInput) -> StepPlan:
        found = Sarathi.plan(self, state)
        limit = self._limit(state)
        return found if limit is None else dataclasses.replace(found, keep=limit)

    def _budget(self, state: SchedulerInput) -> int:
        limit = self._limit(state)
        most = Sarathi._budget(self, state)
        return most if limit is None else min(most, int(limit.tokens))

    def _limit(self, state: SchedulerInput) -> BatchLimit | None:
        """The search one step further; None where nothing is wished."""
        slo_s = self._slo_s(state)
        if slo_s is None:
            return None
        most = Sarathi._budget(self, state)
        kept = state.kept
        if not isinstance(kept, BatchLimit):
            return BatchLimit(tokens=min(most, self.first_tokens), steps_total=state.steps_total)
        if state.steps_total == kept.steps_total or not state.steps:
            return kept
        latest, tokens = state.steps[-1], kept.tokens
        if latest.seconds > slo_s:
            tokens = max(1.0, min(tokens, latest.tokens) * self.backoff)
        elif latest.tokens >= int(tokens):
            tokens = min(most, tokens + self.increase)
        return BatchLimit(tokens=tokens, steps_total=state.steps_total)

    def _slo_s(self, state: SchedulerInput) -> float | None:
        if self.slo_s is not None:
            return self.slo_s
        hints = (seq.turn_hints for seq in state.running)
        return min((h.inter_token_s for h in hints if h is not None and h.inter_token_s), default=None)
