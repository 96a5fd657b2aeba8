"""Routing: the model is chosen once, from load, price, quality and the request; it serves and is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from gateway_app import call
from pentad import registry
from pentad.application.gateway.app import create_app
from pentad.application.gateway.settings import GatewaySettings
from pentad.application.services import Services
from pentad.choice import Choice, build
from pentad.errors import Forbidden, Incompatible
from pentad.execution.backend import Capabilities, collect
from pentad.model.prices import Price
from pentad.model.routing.base import Candidate, ModelRouter, RouterInput, fit
from pentad.model.service import ModelService
from pentad.testing.backends import ALL_FORMATS, ScriptedBackend
from pentad.types import Decision, Message, Objective, Request, RunContext, Usage


def candidate(**changes: object) -> Candidate:
    can = Capabilities(model="m", context_length=4096, formats=ALL_FORMATS, tools=True)
    return replace(Candidate(can=can), **changes)  # type: ignore[arg-type]


def request(**changes: object) -> Request:
    made = Request(id="r", model="", messages=(Message(role="user", content="hello"),))
    return replace(made, **changes)  # type: ignore[arg-type]


def state(candidates: Mapping[str, Candidate], **changes: object) -> RouterInput:
    return RouterInput(
        request=request(**changes), candidates=candidates, default=next(iter(candidates)), now_s=1.0
    )


REMOTE = candidate(can=Capabilities(model="m", context_length=4096, remote=True))


@pytest.mark.parametrize("name", registry.known("router"))
class TestEveryRouter:
    def router(self, name: str) -> ModelRouter:
        return build("router", Choice(name=name))  # type: ignore[no-any-return]

    def test_chooses_a_candidate_and_says_why(self, name: str) -> None:
        known = {"a": candidate(), "b": candidate(price=Price(prompt=1, completion=1), quality=0.5)}
        chosen, decision = self.router(name).route(state(known))
        assert chosen in known
        assert (decision.policy, decision.chosen, decision.subject) == (name, chosen, "model")
        assert {each for each, _ in decision.candidates} <= known.keys()
        assert self.router(name).route(state(known)) == (chosen, decision)

    def test_a_named_model_is_the_one(self, name: str) -> None:
        known = {"a": candidate(), "b": candidate(price=Price(prompt=9, completion=9))}
        assert self.router(name).route(state(known, model="b"))[0] == "b"

    def test_what_is_labelled_local_stays_or_is_refused(self, name: str) -> None:
        context = RunContext(data_label="local")
        chosen, _ = self.router(name).route(state({"here": candidate(), "away": REMOTE}, context=context))
        assert chosen == "here"
        with pytest.raises(Forbidden):
            self.router(name).route(state({"away": REMOTE}, context=context))

    def test_says_which_wishes_it_keeps(self, name: str) -> None:
        assert self.router(name).enforces <= {"min_quality", "max_energy_j"}


def test_fit_leaves_out_what_cannot_serve_and_says_why_when_nothing_can() -> None:
    away = RunContext(data_label="local")
    assert list(fit(state({"away": REMOTE, "here": candidate()}, context=away))) == ["here"]
    with pytest.raises(Forbidden, match="'away' is remote"):
        fit(state({"away": REMOTE}, context=away))


TURNS = [{"role": "user", "content": "x"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternating:
    """Chooses another model each time that it is asked: who asks twice is found out."""

    seen: list[RouterInput]
    name: ClassVar[str] = "alternating"
    enforces: ClassVar[frozenset[str]] = frozenset()

    def route(self, asked: RouterInput) -> tuple[str, Decision]:
        chosen = list(asked.candidates)[len(self.seen) % 2]
        self.seen.append(asked)
        return chosen, Decision(layer="model", policy=self.name, subject="model", chosen=chosen)


def two_models() -> tuple[ModelService, Alternating]:
    router = Alternating(seen=[])
    turn = ["hi", Usage(prompt_tokens=10, completion_tokens=2)]
    models = ModelService(
        {name: ScriptedBackend([turn], repeat=True) for name in ("first", "second")},
        router=router,
        prices={"second": Price(prompt=1e6, completion=0)},
        qualities={"second": 0.7},
    )
    return models, router


def test_a_request_is_routed_once_whatever_is_asked_of_it() -> None:
    models, router = two_models()
    routed = models.routed(request())
    assert routed.model == "first"
    assert models.routed(routed) is routed
    models.count_tokens(routed)
    models.prompt_text(routed)
    completion = asyncio.run(collect(models.stream(routed)))
    assert len(router.seen) == 1
    assert completion.usage.decisions[0] == routed.routed


def test_a_router_sees_price_quality_and_load() -> None:
    models, router = two_models()
    models.routed(request())
    (seen,) = router.seen
    assert seen.candidates["second"].price.prompt == 1e6
    assert [c.quality for c in seen.candidates.values()] == [None, 0.7]
    assert seen.candidates["first"].load == models.stats()["first"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": TURNS}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"model": "any", "max_tokens": 5, "messages": TURNS}),
    ],
)
def test_the_chosen_model_serves_is_billed_and_is_reported(path: str, body: dict[str, object]) -> None:
    models, router = two_models()
    app = create_app(Services(models=models), GatewaySettings())
    headers = {"x-pentad-explain": "true"}
    answers = [call(app, "POST", path, body=body, headers=headers).json() for _ in range(2)]
    assert [answer["model"] for answer in answers] == ["first", "second"]
    assert len(router.seen) == 2
    assert [answer["pentad"]["cost"] for answer in answers] == [0.0, 10.0]


def test_a_wish_that_the_router_does_not_keep_is_refused() -> None:
    models, _ = two_models()
    wish = request(context=RunContext(objective=Objective(min_quality=0.5)))
    with pytest.raises(Incompatible, match="serve with --router cheapest"):
        asyncio.run(collect(models.stream(wish)))
