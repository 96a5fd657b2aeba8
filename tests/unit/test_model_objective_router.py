"""The router by objective, and the speeds that it goes by."""

from __future__ import annotations

import asyncio

import pytest
from test_model_routing import candidate, state

from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.backend import Backend
from pentad.model.prices import Price
from pentad.model.routing.objective import ByObjective
from pentad.model.routing.speed import Speed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import Objective, Request, RunContext, Span, Usage

DEAR = Price(prompt=9, completion=9)
SLOW = Speed(prompt_s=1.0, prompt_tokens=1.0, token_s=0.1)
HURRY = RunContext(objective=Objective(deadline_s=2.0))


def test_without_wishes_it_is_the_cheapest_that_is_good_enough() -> None:
    models = {"cheap": candidate(speed=SLOW, quality=0.3), "dear": candidate(price=DEAR, quality=0.9)}
    assert ByObjective().route(state(models))[0] == "cheap"
    assert ByObjective(floor=0.5).route(state(models))[0] == "dear"
    with pytest.raises(Infeasible, match=r"quality of 0\.95"):
        ByObjective(floor=0.95).route(state(models))


def test_where_nobody_keeps_the_deadline_the_fastest_serves() -> None:
    models = {
        "slower": candidate(speed=SLOW),
        "faster": candidate(price=DEAR, speed=Speed(prompt_s=1.0, prompt_tokens=1.0, token_s=0.05)),
    }
    name, decision = ByObjective().route(state(models, context=HURRY))
    assert (name, decision.constraint) == ("faster", "slo.deadline_s")
    assert dict(decision.candidates)["slower"] == pytest.approx(256 * 0.1 + 1.0, rel=0.1)


def test_a_queue_counts() -> None:
    speed = Speed(prompt_s=0.1, prompt_tokens=1.0, token_s=0.01)
    queue = {"waiting": 8.0, "running": 4.0}
    models = {"busy": candidate(speed=speed, load=queue), "idle": candidate(price=DEAR, speed=speed)}
    wish = RunContext(objective=Objective(ttft_s=1.0))
    assert ByObjective().route(state(models, context=wish))[0] == "idle"
    assert ByObjective().route(state(models))[0] == "busy"


def test_an_unmeasured_model_and_one_measured_long_ago_are_tried() -> None:
    models = {"slow": candidate(speed=SLOW), "new": candidate(price=DEAR)}
    assert ByObjective().route(state(models, context=HURRY))[0] == "new"
    router, asked = ByObjective(fresh_s=0.5), state(models, context=HURRY)  # asked at 1.0, measured at 0.0
    assert router.route(asked)[0] == "slow"


@pytest.mark.parametrize("options", [{"floor": 2}, {"answer_tokens": 0}, {"fresh_s": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest):
        ByObjective(**options)  # type: ignore[arg-type]


def test_a_speed_leaves_waiting_and_cached_tokens_out() -> None:
    usage = Usage(
        prompt_tokens=110,
        cached_tokens=10,
        completion_tokens=11,
        spans=(Span(layer="resource", name="queue", start_s=0.0, end_s=3.0),),
    )
    speed = Speed().after(usage, first_s=5.0, total_s=6.0, now_s=9.0)
    assert speed == Speed(prompt_s=2.0, prompt_tokens=100, token_s=0.1, at_s=9.0)
    assert speed.first_s(50) == 1.0
    assert speed.after(usage, first_s=5.0, total_s=16.0, now_s=10.0).token_s == pytest.approx(0.1 + 0.2)


def test_the_service_measures_each_model_and_shows_it_to_the_router() -> None:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 1.0
        return now_s

    turn = ["a", "b", Usage(prompt_tokens=10, completion_tokens=3)]
    backends: dict[str, Backend] = {
        "slow": ScriptedBackend([turn], repeat=True),
        "other": ScriptedBackend([turn], repeat=True),
    }
    models = ModelService(backends, router=ByObjective(), prices={"other": DEAR}, clock=clock)

    def ask(context: RunContext) -> str:
        request = Request(id="r", model="auto", text="word " * 10, context=context)
        done = asyncio.run(models.complete(request))
        return done.usage.decisions[0].chosen

    assert ask(RunContext()) == "slow"
    assert ask(RunContext(objective=Objective(ttft_s=0.5))) == "other", "the first has been seen to be slow"
