"""The safe mode: each of four failures of what the controller goes by is met within 10 s, and told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from gateway_app import call
from pentad.application.gateway.app import create_app
from pentad.application.gateway.settings import GatewaySettings
from pentad.application.services import Services
from pentad.errors import Infeasible
from pentad.execution.backend import Capabilities, ChoiceDone, Delta, StreamDone, TextDelta
from pentad.model.control.alarms import Alarms
from pentad.model.prices import Price
from pentad.model.routing.elastic import Elastic
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import Decision, Objective, Request, RunContext, Sampling, Usage

TOKENS = 40


class Ticking(ScriptedBackend):
    """Each piece of an answer takes its time on the world's clock, and the bill is as the world has it."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__([[]], repeat=True, capabilities=Capabilities(model=name, context_length=4096))
        self._world, self._name = world, name

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        del request
        world, name = self._world, self._name
        for _ in range(TOKENS):
            world.now_s += world.token_s[name]
            yield TextDelta(text="word ")
        yield ChoiceDone(reason="stop", choice=0)
        cost = world.bill[name] * TOKENS * PRICES[name].completion / 1e6
        yield StreamDone(usage=Usage(prompt_tokens=8, completion_tokens=TOKENS, cost=cost))


PRICES = {"near": Price(prompt=0, completion=100), "far": Price(prompt=0, completion=300)}


class World:
    """Two models on a virtual clock; the first one's speed and bill can be changed."""

    def __init__(self, *, qualities: dict[str, float] | None = None) -> None:
        self.now_s = 1000.0
        self.token_s = {"near": 0.05, "far": 0.2}
        self.bill = {"near": 1.0, "far": 1.0}
        self.models = ModelService(
            {name: Ticking(self, name) for name in PRICES},
            router=Elastic(trials=0.3),
            prices=PRICES,
            qualities={"near": 0.6, "far": 0.8} if qualities is None else qualities,
            clock=lambda: self.now_s,
        )
        self._asked = 0

    def ask(self, model: str = "auto", **objective: object) -> Decision:
        """One answer, and the decision behind it."""
        self._asked += 1
        aim = Objective(**objective)  # type: ignore[arg-type]
        request = Request(
            id=f"r{self._asked}",
            model=model,
            text="what?",
            sampling=Sampling(max_tokens=TOKENS),
            context=RunContext(objective=aim),
        )
        return asyncio.run(self.models.complete(request)).usage.decisions[0]

    def warm(self) -> None:
        """Answers of both, so that their speeds are known."""
        for name in ("near", "far"):
            for _ in range(3):
                self.ask(name)

    def shown(self) -> tuple[str, list[str]]:
        """What /metrics and the console's engine page say."""
        app = create_app(Services(models=self.models, clock=lambda: self.now_s), GatewaySettings())
        gauges = [
            line
            for line in call(app, "GET", "/metrics").text.splitlines()
            if line.startswith("pentad_router_safe_mode{")
        ]
        return "\n".join(gauges), call(app, "GET", "/v1/engine").json()["safe_mode"]


def safe(decision: Decision) -> str:
    return dict(decision.parts).get("safe mode", "")


def test_while_predictions_hold_there_is_no_safe_mode() -> None:
    world = World()
    world.warm()
    assert safe(world.ask(deadline_s=3.0)) == ""
    assert world.shown() == ("", [])


def test_a_model_that_got_slower_by_half_is_left_within_ten_seconds_for_one_that_keeps_the_deadline() -> None:
    world = World()
    world.token_s["far"] = 0.06
    world.warm()
    assert world.ask(deadline_s=3.8, prefer="cost").chosen == "near"
    world.token_s["near"] *= 2
    began_s = world.now_s
    while not safe(last := world.ask(deadline_s=3.8, prefer="cost")):
        assert world.now_s - began_s <= 10.0
    assert world.now_s - began_s <= 10.0 + TOKENS * 0.06
    assert "'near' comes at less than its usual pace" in safe(last)
    assert last.chosen == "far", "the deadline is not given up"
    assert last.notice is not None
    gauges, console = world.shown()
    assert 'model_name="near"' in gauges
    assert 'cause="slow"' in gauges
    assert any("'near' comes" in why for why in console)


def test_a_long_answer_that_slows_down_is_noticed_before_it_ends() -> None:
    world = World()
    world.warm()
    world.token_s["near"] *= 2
    request = Request(id="long", model="near", text="go on", sampling=Sampling(max_tokens=TOKENS))
    known = world.models.outcomes
    asked = world.models.routed(replace(request, context=RunContext(objective=Objective())))
    assert asked.forecast is not None
    known.begun(replace(asked, forecast=replace(asked.forecast, seconds=1000.0)), world.now_s)
    began_s = world.now_s
    while not known.doubts(world.now_s):
        world.now_s += world.token_s["near"]
        known.piece("long", world.now_s)
        assert world.now_s - began_s <= 10.0
    assert known.doubts(world.now_s)[0].cause == "slow"


def test_a_speed_measured_long_ago_is_doubted_where_time_is_limited_and_the_deadline_kept() -> None:
    world = World()
    world.warm()
    assert world.ask(deadline_s=2.5).chosen == "near"
    world.now_s += 400.0
    assert safe(world.ask(prefer="cost")) == "", "nobody asks for time here"
    world.now_s += 400.0
    stale = world.ask(deadline_s=2.5)
    assert "the speed of 'near' was measured" in safe(stale)
    assert "slo.deadline_s" in dict(stale.parts)["not kept"], "two seconds may be three: told, not hidden"
    gauges, console = world.shown()
    assert 'cause="stale-speed"' in gauges
    assert console
    assert stale.chosen == "near", "of what is left, the one that breaks it least"


def test_a_model_without_certificate_keeps_no_floor_and_the_reason_is_told() -> None:
    world = World(qualities={"far": 0.8})
    world.warm()
    decision = world.ask(min_quality=0.7, prefer="cost")
    assert decision.chosen == "far"
    assert safe(decision) == "'near' has neither certificate nor stated quality"
    gauges, console = world.shown()
    assert 'cause="no-certificate",model_name="near"' in gauges
    assert console == ["'near' has neither certificate nor stated quality"]
    with pytest.raises(Infeasible, match="near none stated"):
        World(qualities={}).ask(min_quality=0.7)


def test_wrong_prices_are_learnt_from_what_answers_cost_and_the_limit_kept() -> None:
    world = World()
    world.warm()
    world.bill["near"] = 8.0
    began_s = world.now_s
    while not safe(last := world.ask(max_cost=0.02, prefer="cost")):
        assert world.now_s - began_s <= 10.0
    assert "'near' costs" in safe(last)
    for _ in range(3):
        last = world.ask(max_cost=0.02, prefer="cost")
    assert last.chosen == "far", "0.004 by its price, 0.032 by its bills"
    gauges, _ = world.shown()
    assert 'cause="dear"' in gauges


def test_nothing_is_tried_while_an_alarm_stands() -> None:
    world = World(qualities={"far": 0.8})
    world.warm()
    decisions = [world.ask(min_quality=0.5) for _ in range(20)]
    assert {one.chosen for one in decisions} == {"far"}
    assert {dict(one.parts)["propensity"] for one in decisions} == {"1"}


def test_an_alarm_ends_with_calm() -> None:
    alarms = Alarms()
    for _ in range(3):
        alarms.surprise("m", "slow", "late", 0.0)
    alarms.tell("m", "dear", "bills", 10.0)
    assert {doubt.cause for doubt in alarms.standing(10.0)} == {"slow", "dear"}
    assert {doubt.cause for doubt in alarms.standing(31.0)} == {"dear"}
    assert alarms.standing(41.0) == ()
