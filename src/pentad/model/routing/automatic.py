"""The names `auto`, `auto:cheap`, `auto:fast` and `auto:best`, in front of the router that is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Protocol, runtime_checkable

from pentad.model.routing import estimates
from pentad.model.routing.base import Candidate, Controller, ModelRouter, Questioner, RouterInput
from pentad.model.routing.cascade import Cascade
from pentad.model.routing.fixed import Fixed
from pentad.model.routing.learning import Learner
from pentad.model.routing.objective import ByObjective
from pentad.types import Decision, Request

_ASSUMED_TOKENS: Final = 256
_LATEST: Final = ":latest"
"""What Ollama's clients add to a name without a tag."""


@runtime_checkable
class Judge(Protocol):
    """A router that knows each model's quality for one request better than what is stated."""

    def judged(self, state: RouterInput) -> RouterInput:
        """The same with what it knows in the place of stated qualities."""
        ...


def _cheap(request: Request, candidate: Candidate) -> tuple[float, ...]:
    return (estimates.cost(request, candidate, _ASSUMED_TOKENS), -(candidate.quality or 0.0))


def _fast(request: Request, candidate: Candidate) -> tuple[float, ...]:
    cost = estimates.cost(request, candidate, _ASSUMED_TOKENS)
    return (estimates.total_s(request, candidate, _ASSUMED_TOKENS), cost)


def _best(request: Request, candidate: Candidate) -> tuple[float, ...]:
    return (-(candidate.quality or 0.0), estimates.cost(request, candidate, _ASSUMED_TOKENS))


_RANKS: Final[Mapping[str, Callable[[Request, Candidate], tuple[float, ...]]]] = {
    "auto:cheap": _cheap,
    "auto:fast": _fast,
    "auto:best": _best,
}
AUTO: Final = ("auto", *_RANKS)
"""Names that stand for a choice. A served model or alias of such a name comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Automatic:
    """Serves the names that stand for a choice, and leaves all others to another router.

    `auto` is that router's choice, or `objective`'s where it would only serve named models. `auto:cheap` is
    the lowest price, `auto:fast` the shortest expected time, `auto:best` the highest quality among those that
    may serve and keep `quality`; what the router knows of a model's quality on this request counts.
    Exactness: as the router's. Cost: one rank per model.
    """

    router: ModelRouter

    name: ClassVar[str] = "automatic"

    @property
    def enforces(self) -> frozenset[str]:
        return self.router.enforces

    @property
    def cascade(self) -> Cascade | None:
        """The router, where it judges answers."""
        return self.router if isinstance(self.router, Cascade) else None

    def enforced(self, decision: Decision) -> frozenset[str]:
        """Fields of an objective that this choice keeps."""
        own = {self.name: frozenset({"min_quality"}), ByObjective.name: ByObjective.enforces}
        return self.router.enforces | own.get(decision.policy, frozenset())

    def learner(self, request: Request) -> Learner | None:
        """The router, where it wants to know the answer to this request."""
        wants = isinstance(self.router, Learner) and self.router.learns_from(request)
        return self.router if isinstance(self.router, Learner) and wants else None

    def question(self, request: Request) -> tuple[str, str] | None:
        """Encoder and text of the vector that the router will want; None: it wants none."""
        return self.router.question(request) if isinstance(self.router, Questioner) else None

    def controller(self, state: RouterInput) -> Controller | None:
        """Who decides the request jointly, if its router does; the names with a wish are only ranked."""
        ranked = state.request.model.removesuffix(_LATEST) in _RANKS
        if not isinstance(self.router, Controller) or (
            ranked and state.request.model not in state.candidates
        ):
            return None
        return self.router

    def route(self, state: RouterInput) -> tuple[str, Decision]:
        """The choice. Raises what the router raises; Infeasible where no model is good enough."""
        asked = state.request.model.removesuffix(_LATEST)
        if asked not in AUTO or state.request.model in state.candidates:
            return self.router.route(state)
        state = replace(state, request=replace(state.request, model="auto"))
        if asked == "auto":
            return (ByObjective() if isinstance(self.router, Fixed) else self.router).route(state)
        request = state.request
        judged = self.router.judged(state) if isinstance(self.router, Judge) else state
        able = estimates.able(judged)
        floor = request.context.objective.min_quality or 0.0
        good = estimates.good_enough(able, floor)
        ranks = {name: _RANKS[asked](request, candidate) for name, candidate in good.items()}
        chosen = min(ranks, key=lambda name: ranks[name])
        return chosen, Decision(
            layer="model",
            policy=self.name,
            subject="model",
            chosen=chosen,
            candidates=tuple((name, ranks[name][0] if name in ranks else None) for name in able),
            constraint=asked,
            at_s=state.now_s,
        )
