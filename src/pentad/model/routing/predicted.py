"""The model whose chance of a right answer is worth its price, by recorded outcomes."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.model.routing import estimates
from pentad.model.routing.base import Candidate, RouterInput
from pentad.model.routing.estimate_file import Kept, read_estimate
from pentad.model.routing.success import Question, text_of
from pentad.ranges import in_range
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Serves a request that names no model, or `auto`, by each model's chance to answer it right.

    Of the models whose chance keeps the request's `quality`, the one with the most chance less what its
    price takes away. A model that the estimate does not know counts with its stated quality, as all do where
    there is no estimate or nobody embeds the question. A named model is served, if it is good enough.
    Exactness: lossy where it changes the model; the metric is the share of right answers, which the chances
    predict. Cost: one embedding of the question, then what the estimator says.

    Source: RouteLLM (Ong et al. 2024) and RouterBench (Hu et al. 2024). Our difference: chances are
    calibrated per model, so that `quality` is a floor of the chance, and any number of models compete.
    """

    estimate: str = ""
    """File that `pentad train-router` has made; empty goes by stated qualities."""
    worth: float = 0.1
    """Chance that one gives up to pay the cheapest model's price in place of the dearest's, 0 to 1."""
    answer_tokens: int = 256
    """Assumed of answers whose length nobody limits or expects."""

    name: ClassVar[str] = "predicted"
    enforces: ClassVar[frozenset[str]] = frozenset({"min_quality"})

    def __post_init__(self) -> None:
        in_range("worth", self.worth, least=0, most=1)
        in_range("answer_tokens", self.answer_tokens, least=1)
        if self.estimate:
            self._kept()  # a file that cannot be used ends the start and not some request

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The choice. Raises Infeasible where no model that may serve is good enough."""
        request = state.request
        floor = request.context.objective.min_quality or 0.0
        able = estimates.able(self.judged(state))
        good = estimates.good_enough(able, floor)
        costs = {name: estimates.cost(request, c, self.answer_tokens) for name, c in good.items()}
        least, spread = min(costs.values()), max(costs.values()) - min(costs.values())
        scores = {
            name: (c.quality or 0.0) - (self.worth * (costs[name] - least) / spread if spread else 0.0)
            for name, c in good.items()
        }
        chosen = max(good, key=lambda name: (scores[name], -costs[name]))
        return chosen, Decision(
            layer="model",
            policy=self.name,
            subject="model",
            chosen=chosen,
            candidates=tuple((name, scores.get(name)) for name in able),
            constraint=f"quality of at least {floor:g}"
            if len(good) < len(able)
            else request.context.data_label,
            at_s=state.now_s,
        )

    def judged(self, state: RouterInput) -> RouterInput:
        """The same with each known model's chance in the place of its stated quality."""
        kept = self._kept()
        text = text_of(state.request)
        vector = state.vector(kept.encoder, text) if kept is not None and text else None
        if kept is None or vector is None:
            return state
        (chances,) = kept.estimate.chances([Question(text=text, vector=vector)])
        candidates: Mapping[str, Candidate] = {
            name: replace(one, quality=chances[name].probability) if name in chances else one
            for name, one in state.candidates.items()
        }
        return replace(state, candidates=candidates)

    def _kept(self) -> Kept | None:
        return read_estimate(pathlib.Path(self.estimate).expanduser()) if self.estimate else None
