"""Variants by accuracy, time and load: the cheapest one that answers in time, as things stand now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.model.routing import estimates
from pentad.model.routing.base import Candidate, RouterInput
from pentad.ranges import in_range
from pentad.types import Decision, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Infaas:
    """Serves with the cheapest variant that is accurate enough and answers in time with what waits there.

    Variants are tried by price. One counts as in time where load time, queue and answer together keep
    `headroom` of the request's deadline (and the beginning its wish for the first token). Where several that
    cost the same are in time, the one that is loaded and least busy. Where none is in time, the one that is
    expected to end first, of those that are accurate enough: the request is late, but least.
    Exactness: lossy where it changes the model; the metric is the stated quality. Cost: some comparisons per
    variant; under a millisecond.

    Source: INFaaS (Romero et al., ATC'21, section 4.2, model-variant selection by state). Our difference:
    time is what requests met and what waits now, in place of profiles by batch size, and the scaler `infaas`
    replicates, upgrades and downgrades.
    """

    floor: float = 0.0
    """Least quality of every request, 0 to 1; a request's own `quality` may ask for more."""
    headroom: float = 0.9
    """Share of a deadline that the expected time may take, above 0 to 1."""
    answer_tokens: int = 256
    """Assumed of answers whose length nobody limits or expects."""

    name: ClassVar[str] = "infaas"
    enforces: ClassVar[frozenset[str]] = frozenset({"min_quality"})

    def __post_init__(self) -> None:
        in_range("floor", self.floor, least=0, most=1)
        in_range("headroom", self.headroom, above=0, most=1)
        in_range("answer_tokens", self.answer_tokens, least=1)

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The choice. Raises Infeasible where no model that may serve is good enough."""
        request = state.request
        floor = max(self.floor, request.context.objective.min_quality or 0.0)
        able = estimates.able(state)
        good = estimates.good_enough(able, floor)
        ends = {name: self._ends_s(request, one) for name, one in good.items()}
        in_time = {name: one for name, one in good.items() if self._kept(request, one)}
        chosen = self._cheapest(request, in_time) or min(ends, key=lambda name: ends[name])
        bound = None if len(in_time) == len(good) else "slo.deadline_s" if in_time else "no variant in time"
        return chosen, Decision(
            layer="model",
            policy=self.name,
            subject="model",
            chosen=chosen,
            candidates=tuple((name, ends.get(name)) for name in able),
            constraint=bound or (f"quality of at least {floor:g}" if len(good) < len(able) else None),
            at_s=state.now_s,
        )

    def _cheapest(self, request: Request, variants: Mapping[str, Candidate]) -> str | None:
        def rank(name: str) -> tuple[float, ...]:
            one = variants[name]
            busy = one.load.get("running", 0.0) + one.load.get("waiting", 0.0)
            return (estimates.cost(request, one, self.answer_tokens), _load_s(one), busy)

        return min(variants, key=rank, default=None)

    def _ends_s(self, request: Request, variant: Candidate) -> float:
        return _load_s(variant) + estimates.total_s(request, variant, self.answer_tokens)

    def _kept(self, request: Request, variant: Candidate) -> bool:
        """Whether the variant is expected to keep deadline and first token."""
        objective = request.context.objective
        begins_s = _load_s(variant) + estimates.first_s(request, variant, self.answer_tokens)
        limits = (
            (begins_s, objective.ttft_s),
            (self._ends_s(request, variant), objective.deadline_s),
        )
        return all(limit is None or taken <= self.headroom * limit for taken, limit in limits)


def _load_s(variant: Candidate) -> float:
    """Seconds until it is loaded, as its backend tells; 0 for one that is there."""
    return variant.load.get("load_s", 0.0)
