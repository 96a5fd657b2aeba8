"""Routes: which model serves a request, asked of the router with all that is known now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pentad.model.control.outcomes import Outcomes
from pentad.model.prices import FREE, Price
from pentad.model.routing.automatic import Automatic
from pentad.model.routing.base import Candidate, ModelRouter, RouterInput
from pentad.model.routing.speed import Speed
from pentad.model.sampling_defaults import with_defaults
from pentad.model.served import ServedModels
from pentad.model.text_vectors import TextVectors
from pentad.types import Clock, Request, Usage


class Routes:
    """Keeps what routers go by, and has them choose.

    Args:
        served: the models to choose among.
        router: who chooses.
        prices: name served under to price; a model without one costs nothing.
        qualities: name served under to its quality, 0 to 1, where somebody says.
        clock: monotonic, for decisions.
    """

    def __init__(
        self,
        served: ServedModels,
        router: ModelRouter,
        *,
        prices: Mapping[str, Price],
        qualities: Mapping[str, float],
        clock: Clock,
    ) -> None:
        self.router = Automatic(router=router)
        self.vectors = TextVectors(served.embedders)
        self.outcomes = Outcomes()
        """What came of answers, for controllers."""
        self._served = served
        self._prices = dict(prices)
        self._qualities = dict(qualities)
        self._speeds: dict[str, Speed] = {}
        self._clock = clock

    def under(self, router: ModelRouter) -> Routes:
        """The same models, prices, qualities and speeds under another router; no outcomes yet."""
        other = Routes(
            self._served, router, prices=self._prices, qualities=self._qualities, clock=self._clock
        )
        other._speeds = dict(self._speeds)
        return other

    def price(self, model: str) -> Price:
        """What a served model costs."""
        return self._prices.get(model, FREE)

    def met(self, model: str, usage: Usage, first_s: float, total_s: float, now_s: float) -> None:
        """Notes how fast an answer of the model has come, as `Speed.after` takes it."""
        known = self._speeds.get(model, Speed())
        self._speeds[model] = known.after(usage, first_s, total_s, now_s)

    async def prepare(self, *requests: Request) -> None:
        """Makes the vectors that the router will want of requests it has not seen, off the event loop."""
        for request in requests:
            asked = None if request.routed is not None else self.router.question(request)
            if asked is not None:
                await self.vectors.learn(*asked)

    def chosen(self, ways: Mapping[str, Request]) -> tuple[str, Request]:
        """One of several ways of asking the same, and its request: routed, with the model's defaults where
        it left open how to draw. Raises ModelNotFound, Incompatible, Forbidden, Infeasible."""
        named = {
            way: replace(one, model=self._served.canonical(one.model)) if one.model else one
            for way, one in ways.items()
        }
        first, request = next(iter(named.items()))
        state = RouterInput(
            request=request,
            candidates=self._candidates(),
            default=self._served.default,
            now_s=self._clock(),
            vector=self.vectors.of,
            ways=named,
            outcomes=self.outcomes,
        )
        controller = self.router.controller(state)
        if controller is not None:
            request = controller.control(state)
            first = first if request.forecast is None else request.forecast.way
        else:
            name, decision = self.router.route(state)
            request = replace(request, model=name, routed=decision)
        return first, self.instead(request, request.model)

    def instead(self, request: Request, name: str) -> Request:
        """The same for the model of that name, drawn as it advises where the caller left that open."""
        advised = self._served.backends[name].capabilities.sampling
        return replace(request, model=name, sampling=with_defaults(request.sampling, advised))

    def _candidates(self) -> dict[str, Candidate]:
        return {
            name: Candidate(
                can=backend.capabilities,
                price=self.price(name),
                quality=self._qualities.get(name),
                load=backend.stats(),
                speed=self._speeds.get(name),
            )
            for name, backend in self._served.backends.items()
        }
