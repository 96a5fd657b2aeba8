"""`auto` and its wishes: in every dialect the router chooses."""

from __future__ import annotations

import asyncio

import pytest
from test_model_routing import candidate, request, state

from gateway_app import call
from pentad.application.gateway.app import create_app
from pentad.application.gateway.settings import GatewaySettings
from pentad.application.services import Services
from pentad.errors import Incompatible, Infeasible
from pentad.execution.backend import collect
from pentad.model.prices import Price
from pentad.model.routing.automatic import AUTO, Automatic
from pentad.model.routing.base import ModelRouter
from pentad.model.routing.cheapest import Cheapest
from pentad.model.routing.fixed import Fixed
from pentad.model.routing.speed import Speed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import Objective, RunContext, Usage

CANDIDATES = {
    "plain": candidate(price=Price(prompt=5, completion=5), quality=0.5, speed=Speed(token_s=0.05, at_s=1)),
    "cheap": candidate(price=Price(prompt=1, completion=1), quality=0.2, speed=Speed(token_s=0.03, at_s=1)),
    "fast": candidate(price=Price(prompt=9, completion=9), quality=0.4, speed=Speed(token_s=0.01, at_s=1)),
    "best": candidate(price=Price(prompt=30, completion=30), quality=0.9, speed=Speed(token_s=0.2, at_s=1)),
}


@pytest.mark.parametrize("router", [Fixed(), Cheapest()])
@pytest.mark.parametrize("wish", ["cheap", "fast", "best"])
def test_a_wish_chooses_by_price_time_or_quality(router: ModelRouter, wish: str) -> None:
    for name in (f"auto:{wish}", f"auto:{wish}:latest"):
        chosen, decision = Automatic(router=router).route(state(CANDIDATES, model=name))
        assert (chosen, decision.policy, decision.constraint) == (wish, "automatic", f"auto:{wish}")
        assert {one for one, _ in decision.candidates} == CANDIDATES.keys()


def test_auto_is_the_routers_choice_and_names_stay_names() -> None:
    assert Automatic(router=Cheapest()).route(state(CANDIDATES, model="auto"))[1].policy == "cheapest"
    assert Automatic(router=Fixed()).route(state(CANDIDATES, model="auto"))[1].policy == "objective"
    assert Automatic(router=Fixed()).route(state(CANDIDATES, model="fast"))[0] == "fast"
    own = {**CANDIDATES, "auto:best": candidate()}
    assert Automatic(router=Fixed()).route(state(own, model="auto:best"))[0] == "auto:best"


def test_a_wish_keeps_the_floor_of_quality_or_is_refused() -> None:
    floor = RunContext(objective=Objective(min_quality=0.45))
    wanted = state(CANDIDATES, model="auto:cheap", context=floor)
    assert Automatic(router=Fixed()).route(wanted)[0] == "plain"
    too_much = RunContext(objective=Objective(min_quality=0.95))
    with pytest.raises(Infeasible):
        Automatic(router=Fixed()).route(state(CANDIDATES, model="auto:fast", context=too_much))


def service() -> ModelService:
    usage = Usage(prompt_tokens=10, completion_tokens=2)
    return ModelService(
        {name: ScriptedBackend([[f"by {name}", usage]], repeat=True) for name in ("first", "second")},
        router=Fixed(),
        prices={"first": Price(prompt=1, completion=1), "second": Price(prompt=9, completion=9)},
        qualities={"first": 0.3, "second": 0.8},
    )


def test_a_floor_holds_for_auto_and_is_refused_where_a_model_is_named() -> None:
    floor = RunContext(objective=Objective(min_quality=0.5))
    done = asyncio.run(collect(service().stream(request(model="auto", context=floor))))
    assert done.usage.decisions[0].chosen == "second"
    with pytest.raises(Incompatible, match="nothing here enforces it"):
        asyncio.run(collect(service().stream(request(model="first", context=floor))))


TURNS = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("name", AUTO)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": TURNS}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"max_tokens": 5, "messages": TURNS}),
        ("/api/chat", {"messages": TURNS, "stream": False}),
        ("/api/generate", {"prompt": "x", "stream": False}),
    ],
)
def test_every_dialect_takes_the_name(name: str, path: str, body: dict[str, object]) -> None:
    app = create_app(Services(models=service()), GatewaySettings())
    answer = call(app, "POST", path, body={"model": name, **body})
    assert answer.status_code == 200, answer.text
    served = "second" if name == "auto:best" else "first"
    assert f"by {served}" in answer.text
    # Ollama's clients get back the name that they sent.
    assert answer.json()["model"] == (name if path.startswith("/api") else served)


def test_the_names_are_listed_where_there_is_a_choice() -> None:
    app = create_app(Services(models=service()), GatewaySettings())
    listed = [card["id"] for card in call(app, "GET", "/v1/models").json()["data"]]
    assert listed == ["first", "second", *AUTO]
    assert call(app, "GET", "/v1/models/auto:best").json()["id"] == "auto:best"
    alone = ModelService({"first": ScriptedBackend([["x"]], repeat=True)}, router=Fixed())
    cards = call(create_app(Services(models=alone), GatewaySettings()), "GET", "/v1/models").json()["data"]
    assert [card["id"] for card in cards] == ["first"]
