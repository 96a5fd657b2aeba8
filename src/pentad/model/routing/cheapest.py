"""The cheapest model that is good enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.model.routing import estimates
from pentad.model.routing.base import RouterInput
from pentad.ranges import in_range
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheapest:
    """Serves a request that names no model, or `auto`, with the cheapest one of sufficient quality.

    Compared is what the answer that is expected, or else the longest one asked for, would cost at each
    model's price; of equal ones the better, then the first wins. A named model is served as `fixed` does,
    if it is good enough.
    Exactness: lossy where it changes the model; the metric is the quality that the catalogue and the
    settings state. Cost: one comparison per model.

    Source: the cheapest-under-a-constraint baseline of FrugalGPT (Chen et al., 2023) and RouteLLM
    (Ong et al., 2024); no quality is predicted per request.
    """

    floor: float = 0.0
    """Least quality of every request, 0 to 1; a request's own `quality` may ask for more."""
    answer_tokens: int = 256
    """Assumed of answers whose length nobody limits or expects, for the comparison."""

    name: ClassVar[str] = "cheapest"
    enforces: ClassVar[frozenset[str]] = frozenset({"min_quality"})

    def __post_init__(self) -> None:
        in_range("floor", self.floor, least=0, most=1)
        in_range("answer_tokens", self.answer_tokens, least=1)

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The choice. Raises Infeasible where no model that may serve is good enough."""
        request = state.request
        floor = max(self.floor, request.context.objective.min_quality or 0.0)
        able = estimates.able(state)
        good = estimates.good_enough(able, floor)
        costs = {name: estimates.cost(request, c, self.answer_tokens) for name, c in good.items()}
        chosen = min(good, key=lambda name: (costs[name], -(good[name].quality or 0.0)))
        left_out = len(good) < len(able)
        return chosen, Decision(
            layer="model",
            policy=self.name,
            subject="model",
            chosen=chosen,
            candidates=tuple((name, costs.get(name)) for name in able),
            constraint=f"quality of at least {floor:g}" if left_out else request.context.data_label,
            at_s=state.now_s,
        )
