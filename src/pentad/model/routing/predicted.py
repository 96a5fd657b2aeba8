"""The model whose chance of a right answer is worth its price, by recorded outcomes."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from pentad.execution.backend import Completion
from pentad.model.routing import estimates
from pentad.model.routing.base import Candidate, RouterInput, VectorOf
from pentad.model.routing.estimate_file import Kept, read_estimate
from pentad.model.routing.outcome_store import OutcomeStore
from pentad.model.routing.outcomes import Outcome
from pentad.model.routing.recalibrated import Recalibrated
from pentad.model.routing.signals import has_form, signal_of
from pentad.model.routing.success import Question, SuccessEstimate, text_of
from pentad.ranges import in_range
from pentad.types import Decision, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Serves a request that names no model, or `auto`, by each model's chance to answer it right.

    Of the models whose chance keeps the request's `quality`, the one with the most chance less what its
    price takes away. A model that the estimate does not know counts with its stated quality, as all do where
    there is no estimate or nobody embeds the question. A named model is served, if it is good enough.
    Exactness: lossy where it changes the model; the metric is the share of right answers, which the chances
    predict. Cost: one embedding of the question, then what the estimator says.

    Source: RouteLLM (Ong et al. 2024) and RouterBench (Hu et al. 2024). Our difference: chances are
    calibrated per model, so that `quality` is a floor of the chance, and any number of models compete; with
    `outcomes` answers whose form is wrong (JSON that was asked for, calls of tools) lower the chances of
    that model for that tenant.
    """

    estimate: str = ""
    """File that `pentad train-router` has made; empty goes by stated qualities."""
    outcomes: str = ""
    """Folder in which each tenant's own outcomes are kept and correct its chances; empty keeps none."""
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
        if self.outcomes:
            self._store()

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

    def question(self, request: Request) -> tuple[str, str] | None:
        """Encoder and text of the vector that the chances are told from; None without an estimate."""
        kept, text = self._kept(), text_of(request)
        return (kept.encoder, text) if kept is not None and text else None

    def judged(self, state: RouterInput) -> RouterInput:
        """The same with each known model's chance in the place of its stated quality."""
        kept, asked = self._kept(), self.question(state.request)
        vector = None if asked is None else state.vector(*asked)
        if kept is None or asked is None or vector is None:
            return state
        _, text = asked
        estimate: SuccessEstimate = kept.estimate
        if self.outcomes:
            store, tenant = self._store(), state.request.tenant
            estimate = _corrected(store, tenant, kept, store.version(tenant))
        (chances,) = estimate.chances([Question(text=text, vector=vector)])
        candidates: Mapping[str, Candidate] = {
            name: replace(one, quality=chances[name].probability) if name in chances else one
            for name, one in state.candidates.items()
        }
        return replace(state, candidates=candidates)

    def learns_from(self, request: Request) -> bool:
        """Whether the answer may tell how right it was. What has a data label is never kept."""
        return (
            bool(self.outcomes and self.estimate) and request.context.data_label is None and has_form(request)
        )

    def note(self, request: Request, answer: Completion, vector: VectorOf) -> None:
        """Keeps what the answer's form tells of its model, as the tenant's own."""
        signal, kept, text = signal_of(request, answer), self._kept(), text_of(request)
        found = vector(kept.encoder, text) if kept is not None and text else None
        if signal is None or kept is None or found is None:
            return
        (chances,) = kept.estimate.chances([Question(text=text, vector=found)])
        if request.model in chances:
            said = chances[request.model].probability
            # A right form does not make an answer right: it leaves the chance as it was.
            outcome = Outcome(
                prompt=text,
                right={request.model: signal * said},
                said={request.model: said},
                estimate=kept.made,
            )
            self._store().add(request.tenant, outcome)

    def _store(self) -> OutcomeStore:
        return _opened(pathlib.Path(self.outcomes).expanduser())

    def _kept(self) -> Kept | None:
        return read_estimate(pathlib.Path(self.estimate).expanduser()) if self.estimate else None


@functools.lru_cache(maxsize=8)
def _opened(folder: pathlib.Path) -> OutcomeStore:
    """One store per folder, so that its lock holds."""
    return OutcomeStore(folder)


@functools.lru_cache(maxsize=64)
def _corrected(
    store: OutcomeStore,
    tenant: str,
    kept: Kept,
    _version: tuple[int, ...],
) -> Recalibrated:
    """The estimate as that tenant's outcomes correct it; made anew when there are more."""
    own = [one for one in store.read(tenant) if one.estimate == kept.made]
    return Recalibrated.by(kept.estimate, own)
