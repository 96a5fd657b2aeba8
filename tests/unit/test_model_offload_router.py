"""The router `offload`: the simulator's offload policies decide between local and remote backends."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from offload_policies import named
from test_model_routing import REMOTE, candidate, state

from pentad.application.config_loading import resolve
from pentad.choice import Choice, build
from pentad.errors import Forbidden, Infeasible, InvalidRequest, UnknownName
from pentad.execution.backend import Backend
from pentad.model.prices import Price
from pentad.model.routing.offloaded import ByOffloading
from pentad.model.routing.speed import Speed
from pentad.model.service import ModelService
from pentad.registry import known
from pentad.testing.backends import ScriptedBackend
from pentad.types import Objective, Request, RunContext, Usage

SLOW = Speed(prompt_s=1.0, prompt_tokens=100.0, token_s=0.1, at_s=1.0)
QUICK = Speed(prompt_s=0.5, prompt_tokens=100.0, token_s=0.02, at_s=1.0)
AWAY = dataclasses.replace(REMOTE, speed=QUICK, price=Price(prompt=0, completion=1000.0))
HERE = candidate(speed=SLOW)


@pytest.mark.parametrize("policy", known("offload"))
def test_every_offload_policy_routes_and_its_scores_are_in_the_decision(policy: str) -> None:
    router = ByOffloading(policy=named(policy))
    chosen, decision = router.route(state({"here": HERE, "away": AWAY}))
    assert chosen in {"here", "away"}
    assert [name for name, _ in decision.candidates] == ["here", "away"]
    assert all(score is not None for _, score in decision.candidates)
    assert router.route(state({"here": HERE, "away": AWAY})) == (chosen, decision)


def test_a_policy_that_must_be_trained_is_refused_before_the_first_request() -> None:
    with pytest.raises(InvalidRequest, match="has not been trained") as refused:
        ByOffloading(policy="deep-q")
    assert "pentad train-policy deep-q" in str(refused.value.hint)


def test_local_stays_here_fastest_goes_where_the_answer_is_sooner() -> None:
    models = {"here": HERE, "away": AWAY}
    assert ByOffloading(policy="local").route(state(models))[0] == "here"
    assert ByOffloading(policy="fastest").route(state(models))[0] == "away"
    idle = dataclasses.replace(HERE, speed=QUICK)
    busy = dataclasses.replace(AWAY, load={"running": 4.0, "waiting": 8.0})
    assert ByOffloading().route(state({"here": idle, "away": busy}))[0] == "here"


def test_label_price_and_quality_bind_the_choice() -> None:
    models = {"here": HERE, "away": AWAY}
    label = RunContext(data_label="local")
    assert ByOffloading().route(state(models, context=label))[0] == "here"
    with pytest.raises(Forbidden):
        ByOffloading().route(state({"away": AWAY}, context=label))
    money = RunContext(objective=Objective(max_cost=0.1))  # 256 tokens away cost 0.256
    chosen, decision = ByOffloading().route(state(models, context=money))
    assert (chosen, decision.constraint) == ("here", "max_cost")
    with pytest.raises(Infeasible, match="the least is"):
        ByOffloading().route(state({"away": AWAY}, context=money))
    good = {"here": dataclasses.replace(HERE, quality=0.9), "away": dataclasses.replace(AWAY, quality=0.2)}
    wish = RunContext(objective=Objective(min_quality=0.5))
    chosen, decision = ByOffloading().route(state(good, context=wish))
    assert chosen == "here"
    assert dict(decision.candidates)["away"] is None


def test_what_was_not_measured_lately_is_tried() -> None:
    fresh = dataclasses.replace(AWAY, speed=None)
    assert ByOffloading().route(state({"here": HERE, "away": fresh}))[0] == "away"
    old = dataclasses.replace(HERE, speed=dataclasses.replace(SLOW, at_s=-10.0))
    assert ByOffloading(fresh_s=5.0).route(state({"here": old, "away": AWAY}))[0] == "here"


def test_flow_takes_turns_by_what_each_was_given() -> None:
    given = {"here": 0, "away": 0}
    for _ in range(6):
        loads = {
            "here": {"requests_finished_total": given["here"]},
            "away": {"requests_total": given["away"]},
        }
        models = {
            "here": dataclasses.replace(HERE, load=loads["here"]),
            "away": dataclasses.replace(AWAY, load=loads["away"]),
        }
        given[ByOffloading(policy="flow").route(state(models))[0]] += 1
    assert given == {"here": 3, "away": 3}


def test_it_is_chosen_in_the_settings_and_a_wrong_policy_is_refused_there() -> None:
    settings = resolve({"router": "offload:policy=local"}, env={}).settings
    assert build("router", settings.router) == ByOffloading(policy="local")
    with pytest.raises(UnknownName, match="did you mean 'fastest'"):
        build("router", Choice(name="offload", options={"policy": "fastst"}))
    with pytest.raises(InvalidRequest, match="fresh_s"):
        ByOffloading(fresh_s=0)


def test_a_service_learns_where_answers_come_sooner_and_goes_there() -> None:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 1.0
        return now_s

    turn = ["a", "b", Usage(prompt_tokens=10, completion_tokens=3)]
    backends: dict[str, Backend] = {
        "one": ScriptedBackend([turn], repeat=True),
        "other": ScriptedBackend([turn], repeat=True),
    }
    models = ModelService(backends, router=ByOffloading(), clock=clock)

    def ask() -> str:
        done = asyncio.run(models.complete(Request(id="r", model="auto", text="word " * 10)))
        (decision,) = (d for d in done.usage.decisions if d.subject == "model")
        assert decision.policy == "offload"
        return decision.chosen

    assert [ask(), ask()] == ["one", "other"], "the first is measured and slow, so the other is tried"
