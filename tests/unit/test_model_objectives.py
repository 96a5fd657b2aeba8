"""Deadlines and budgets of one request act: a typed refusal, or a part of an answer that says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from gateway_app import call, chat, param_of, scripted_app
from pentad.errors import BudgetExceeded, DeadlineExceeded, Incompatible, PentadError
from pentad.execution.backend import ChoiceDone, Completion
from pentad.model.prices import Price
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend, Turn
from pentad.types import Budget, Objective, Request, RunContext, Sampling, Usage

LENGTH = ChoiceDone(reason="length")
PRICE = Price(prompt=1e6, completion=1e6)
"""One piece of money per token."""


def answered(turn: Turn, *, price: Price | None = None, **change: Any) -> tuple[Completion, ScriptedBackend]:
    backend = ScriptedBackend([turn])
    prices = {} if price is None else {"m": price}
    models = ModelService({"m": backend}, router=Fixed(), prices=prices)
    context = RunContext(**{k: change.pop(k) for k in ("budget", "objective") if k in change})
    request = Request(id="r", model="m", text="one two three", context=context, **change)
    return asyncio.run(models.complete(request)), backend


def limits_of(answer: Completion) -> list[str | None]:
    return [d.constraint for d in answer.usage.decisions if d.subject == "limit"]


def test_a_deadline_that_passes_before_anything_is_said_is_a_typed_refusal() -> None:
    with pytest.raises(DeadlineExceeded, match=r"within the 0.001 s of slo.deadline_s") as caught:
        answered([asyncio.Event(), "late"], objective=Objective(deadline_s=0.001))
    assert (caught.value.status, caught.value.code) == (422, "deadline_exceeded")


def test_a_wall_budget_that_passes_is_a_budget_refusal() -> None:
    with pytest.raises(BudgetExceeded, match=r"budget\.wall_s"):
        answered([asyncio.Event()], budget=Budget(wall_s=0.001), objective=Objective(deadline_s=5))


def test_what_was_said_by_the_deadline_is_the_answer_and_says_so() -> None:
    answer, backend = answered(["two words", asyncio.Event(), "late"], objective=Objective(deadline_s=0.1))
    assert (answer.message.content, answer.choices[0].reason) == ("two words", "length")
    assert limits_of(answer) == ["slo.deadline_s"]
    assert answer.usage.prompt_tokens == 3
    assert answer.usage.completion_tokens > 0
    assert backend.closed_early == 1


def test_an_answer_in_time_is_untouched() -> None:
    answer, _ = answered(["hello"], objective=Objective(deadline_s=60), budget=Budget(tokens=1000))
    assert (answer.message.content, limits_of(answer)) == ("hello", [])


def test_a_token_budget_bounds_the_answer_behind_its_prompt() -> None:
    answer, backend = answered([*"ab", LENGTH], budget=Budget(tokens=5), sampling=Sampling(max_tokens=50))
    assert backend.requests[0].sampling.max_tokens == 2
    assert answer.choices[0].reason == "length"
    assert limits_of(answer) == ["budget.tokens"]
    _, free = answered(["hi"], budget=Budget(tokens=500), sampling=Sampling(max_tokens=50))
    assert free.requests[0].sampling.max_tokens == 50


def test_choices_share_the_budget() -> None:
    _, backend = answered(["hi"], budget=Budget(tokens=9), sampling=Sampling(max_tokens=50, n=3))
    assert backend.requests[0].sampling.max_tokens == 2


@pytest.mark.parametrize(
    ("budget", "sampling", "field"),
    [
        (Budget(tokens=3), Sampling(), "budget.tokens"),
        (Budget(tokens=0), Sampling(), "budget.tokens"),
        (Budget(tokens=5), Sampling(n=3), "budget.tokens"),
        (Budget(tokens=5), Sampling(min_tokens=3), "budget.tokens"),
        (Budget(cost=2.0), Sampling(), "budget.cost"),
        (Budget(cost=3.5), Sampling(), "budget.cost"),
    ],
)
def test_a_budget_without_room_for_an_answer_is_refused_unsent(
    budget: Budget, sampling: Sampling, field: str
) -> None:
    with pytest.raises(BudgetExceeded, match="the prompt has 3 tokens") as caught:
        answered(["hi"], price=PRICE, budget=budget, sampling=sampling)
    assert (caught.value.status, caught.value.param) == (402, field)


@pytest.mark.parametrize("limit", [{"budget": Budget(cost=5.0)}, {"objective": Objective(max_cost=5.0)}])
def test_money_bounds_the_answer_by_the_models_price(limit: dict[str, Any]) -> None:
    used = Usage(prompt_tokens=3, completion_tokens=2)
    answer, backend = answered(["a b", used], price=PRICE, sampling=Sampling(max_tokens=50), **limit)
    assert backend.requests[0].sampling.max_tokens == 2
    assert answer.usage.cost == 5.0
    _, free = answered(["hi"], sampling=Sampling(max_tokens=50), **limit)
    assert free.requests[0].sampling.max_tokens == 50, "what has no price costs nothing"


@pytest.mark.parametrize(
    ("objective", "param"),
    [(Objective(min_quality=0.99), "quality"), (Objective(max_energy_j=1.0), "max_energy_j")],
)
def test_wishes_that_nothing_acts_on_are_refused(objective: Objective, param: str) -> None:
    with pytest.raises(Incompatible, match="nothing here enforces it yet") as caught:
        answered(["hi"], objective=objective)
    assert caught.value.param == param


# At the gateway


@pytest.mark.parametrize(
    ("pentad", "status", "param"),
    [
        ({"slo": {"deadline_s": 0.001}}, 422, "slo.deadline_s"),
        ({"budget": {"tokens": 1}}, 402, "budget.tokens"),
        ({"quality": 0.99}, 400, "quality"),
        ({"budget": {"tool_calls": 3}}, 400, "budget.tool_calls"),
    ],
)
def test_clients_get_a_typed_4xx(pentad: dict[str, Any], status: int, param: str) -> None:
    app, _ = scripted_app([[asyncio.Event(), "late"]])
    refused = chat(app, pentad=pentad)
    assert (refused.status_code, param_of(refused)) == (status, param)


def test_a_part_of_an_answer_is_marked_without_being_asked() -> None:
    def app() -> Starlette:
        return scripted_app([["soon", asyncio.Event(), "late"]])[0]

    pentad = {"slo": {"deadline_s": 0.1}}
    plain = chat(app(), pentad=pentad).json()
    assert plain["choices"][0]["finish_reason"] == "length"
    assert plain["pentad"] == {"limits": ["slo.deadline_s"]}
    streamed = chat(app(), pentad=pentad, stream=True, stream_options={"include_usage": True}).text
    assert '"limits":["slo.deadline_s"]' in streamed
    anthropic = {"model": "scripted", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    message = call(app(), "POST", "/v1/messages", body={**anthropic, "pentad": pentad}).json()
    assert (message["stop_reason"], message["pentad"]) == ("max_tokens", {"limits": ["slo.deadline_s"]})


def counted(app: Starlette) -> dict[tuple[str, str], float]:
    text = app.state.gateway.metrics.text().decode()
    family = next(f for f in text_string_to_metric_families(text) if f.name == "pentad_objectives")
    return {
        (s.labels["objective"], s.labels["outcome"]): s.value
        for s in family.samples
        if s.name == "pentad_objectives_total"
    }


def test_objectives_met_and_missed_are_counted() -> None:
    app, _ = scripted_app([["a", "b"]])
    chat(app, pentad={"slo": {"ttft_s": 60, "inter_token_s": 60, "deadline_s": 60}})
    chat(app, pentad={"slo": {"ttft_s": 1e-9, "inter_token_s": 1e-12}})
    met = dict.fromkeys([("ttft", "met"), ("inter_token", "met"), ("deadline", "met")], 1)
    assert counted(app) == {**met, ("ttft", "missed"): 1, ("inter_token", "missed"): 1}
    for turn in ([asyncio.Event()], ["a", asyncio.Event()]):
        late, _ = scripted_app([turn])
        chat(late, pentad={"slo": {"deadline_s": 0.05}})
        assert counted(late) == {("deadline", "missed"): 1}


def test_the_errors_are_ours() -> None:
    assert issubclass(DeadlineExceeded, PentadError)
    assert DeadlineExceeded.status < 500
