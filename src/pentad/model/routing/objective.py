"""The cheapest model that keeps the request's whole objective, as far as can be told before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from pentad.execution.hints import remaining_steps
from pentad.model.routing import estimates
from pentad.model.routing.base import Candidate, RouterInput
from pentad.ranges import in_range
from pentad.types import Decision, Request

_MONEY: Final = frozenset({"slo.max_cost", "budget.cost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ByObjective:
    """Serves a request that names no model, or `auto`, with the cheapest one that keeps its objective.

    Quality is a floor. Time to the first token, time between tokens, a deadline (shared with the steps that
    are to come) and money are compared with what each model is expected to take by its measured speed, its
    queue and its price. Where no model keeps them all, the one that misses the fewest serves, money
    counted first, and the fastest of these. A model that was not measured lately is expected to be fast,
    so that it is measured.
    Exactness: lossy where it changes the model; the metric is the quality that the catalogue and the
    settings state. Cost: some estimates per model.

    Source: SLO-aware model selection as in INFaaS (Romero et al., ATC'21); our difference: the speed is
    what requests met, nothing is profiled before.
    """

    floor: float = 0.0
    """Least quality of every request, 0 to 1; a request's own `quality` may ask for more."""
    answer_tokens: int = 256
    """Assumed of answers whose length nobody limits or expects."""
    fresh_s: float = 300.0
    """A speed that was measured longer ago is not believed, so that a model that was slow is tried again."""

    name: ClassVar[str] = "objective"
    enforces: ClassVar[frozenset[str]] = frozenset({"min_quality"})

    def __post_init__(self) -> None:
        in_range("floor", self.floor, least=0, most=1)
        in_range("answer_tokens", self.answer_tokens, least=1)
        in_range("fresh_s", self.fresh_s, above=0)

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The choice. Raises Infeasible where no model that may serve is good enough."""
        request = state.request
        floor = max(self.floor, request.context.objective.min_quality or 0.0)
        able = estimates.able(state)
        good = {n: self._fresh(c, state.now_s) for n, c in estimates.good_enough(able, floor).items()}
        missed = {name: self._missed(request, candidate) for name, candidate in good.items()}
        seconds = {name: estimates.total_s(request, c, self.answer_tokens) for name, c in good.items()}
        chosen = min(good, key=lambda name: self._rank(request, good, missed, seconds, name))
        return chosen, Decision(
            layer="model",
            policy=self.name,
            subject="model",
            chosen=chosen,
            candidates=tuple((name, seconds.get(name)) for name in able),
            constraint=_bound(missed, floor if len(good) < len(able) else None, request.context.data_label),
            at_s=state.now_s,
        )

    def _fresh(self, candidate: Candidate, now_s: float) -> Candidate:
        """The candidate, without a speed that is too old."""
        speed = candidate.speed
        stale = speed is not None and now_s - speed.at_s > self.fresh_s
        return replace(candidate, speed=None) if stale else candidate

    def _rank(
        self,
        request: Request,
        good: Mapping[str, Candidate],
        missed: Mapping[str, tuple[str, ...]],
        seconds: Mapping[str, float],
        name: str,
    ) -> tuple[float, ...]:
        cost = estimates.cost(request, good[name], self.answer_tokens)
        misses = missed[name]
        unpaid = len(_MONEY.intersection(misses))  # first: money that is spent cuts the answer
        in_time = (cost, seconds[name]) if not misses else (seconds[name], cost)
        return (unpaid, len(misses), *in_time, -(good[name].quality or 0.0))

    def _missed(self, request: Request, candidate: Candidate) -> tuple[str, ...]:
        """Which wishes and limits of the request the candidate is expected not to keep."""
        context, assumed = request.context, self.answer_tokens
        objective, speed = context.objective, candidate.speed
        steps = 1 + (remaining_steps(context) or 0)
        total_s = estimates.total_s(request, candidate, assumed) * steps
        money = estimates.cost(request, candidate, assumed)
        found = {
            "slo.ttft_s": (estimates.first_s(request, candidate, assumed), objective.ttft_s),
            "slo.inter_token_s": (0.0 if speed is None else speed.token_s, objective.inter_token_s),
            "slo.deadline_s": (total_s, objective.deadline_s),
            "budget.wall_s": (total_s, context.budget.wall_s),
            "slo.max_cost": (money, objective.max_cost),
            "budget.cost": (money, context.budget.cost),
        }
        return tuple(name for name, (value, limit) in found.items() if limit is not None and value > limit)


def _bound(missed: Mapping[str, tuple[str, ...]], floor: float | None, label: str | None) -> str | None:
    """What bound the choice: the wishes that some model misses, else the quality, else the label."""
    wishes = dict.fromkeys(wish for names in missed.values() for wish in names)
    if wishes:
        return ", ".join(wishes)
    return label if floor is None else f"quality of at least {floor:g}"
