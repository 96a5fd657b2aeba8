"""The router tabi: the small model answers first, what it is not sure of is escalated, one budget pays."""

from __future__ import annotations

import asyncio
import json
import math
import pathlib
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from test_model_routing import request

from pentad.errors import InvalidRequest
from pentad.execution.backend import (
    ChoiceDone,
    Completion,
    Delta,
    StreamDone,
    TextDelta,
    TokenLogprob,
    fold,
)
from pentad.model.prices import Price
from pentad.model.routing.calibration import calibration_error
from pentad.model.routing.tabi import Known, Tabi, confidence
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import Budget, Message, Objective, OutputFormat, Request, RunContext, Usage


class Sure(ScriptedBackend):
    """Answers with one token of a probability that the question names, as `0.9`; 100 tokens each way."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        assert request.messages
        sure = float(request.messages[-1].content)
        told = TokenLogprob(text="x", data=b"x", logprob=math.log(sure))
        logprobs = () if request.sampling.logprobs is None else (told,)
        yield TextDelta(text=f"{self.capabilities.model}", logprobs=logprobs)
        yield ChoiceDone(reason="stop")
        yield StreamDone(usage=Usage(prompt_tokens=100, completion_tokens=100))


def service(router: Tabi) -> tuple[ModelService, Sure, Sure]:
    small, large = Sure([], model="small"), Sure([], model="large")
    prices = {"small": Price(prompt=1, completion=1), "large": Price(prompt=20, completion=20)}
    return ModelService({"large": large, "small": small}, router=router, prices=prices), small, large


def asked(models: ModelService, sure: str, **changes: object) -> Completion:
    messages = (Message(role="user", content=sure),)
    return asyncio.run(models.complete(request(messages=messages, **{"model": "auto", **changes})))


@pytest.mark.row("mi-tabi", "mechanism")
@pytest.mark.row("cost-hybrid-models", "mechanism")
def test_what_the_small_model_is_sure_of_never_reaches_the_large_one() -> None:
    models, small, large = service(Tabi(keep=0.8))
    sure = asked(models, "0.9")
    assert (sure.message.content, len(small.requests), len(large.requests)) == ("small", 1, 0)
    assert sure.choices[0].logprobs == (), "nobody asked for them"
    assert [d.chosen for d in sure.usage.decisions if d.subject == "answer"] == ["kept"]
    unsure = asked(models, "0.5")
    assert (unsure.message.content, len(large.requests)) == ("large", 1)
    assert [d.chosen for d in unsure.usage.decisions if d.policy == "tabi"] == ["small", "large"]


@pytest.mark.row("cost-hybrid-models", "mechanism")
def test_the_answer_that_is_given_up_is_paid_too() -> None:
    models, _, _ = service(Tabi())
    unsure = asked(models, "0.5")
    assert unsure.usage.total_tokens == 400
    assert unsure.usage.cost == pytest.approx(models.price("small").cost(Usage(prompt_tokens=200)) * 21)


@pytest.mark.row("cost-hybrid-models", "mechanism")
def test_both_answers_count_against_one_budget() -> None:
    models, _, large = service(Tabi())
    asked(models, "0.5", context=RunContext(budget=Budget(tokens=1000), objective=Objective(deadline_s=60)))
    left = large.requests[0].context
    assert left.budget.tokens == 800
    assert left.objective.deadline_s is not None
    assert left.objective.deadline_s < 60
    # What is left does not pay for the large model's prompt: the answer that is there is given.
    short = asked(models, "0.5", context=RunContext(budget=Budget(tokens=201)))
    assert (short.message.content, short.usage.total_tokens, len(large.requests)) == ("small", 200, 1)
    assert "left by budget.tokens" in (short.usage.decisions[-1].constraint or "")


def test_a_named_model_and_several_choices_are_served_alone() -> None:
    models, _, large = service(Tabi())
    assert asked(models, "0.5", model="small").message.content == "small"
    assert not large.requests


def test_a_wrong_form_is_never_sure() -> None:
    told = (TokenLogprob(text="[", data=b"[", logprob=-0.01),)
    deltas = [TextDelta(text="[1]", logprobs=told), ChoiceDone(reason="stop"), StreamDone(usage=Usage())]
    wanted = request(format=OutputFormat(kind="json_object"))
    assert confidence(wanted, fold(deltas)) == 0
    assert confidence(request(), fold(deltas)) == pytest.approx(math.exp(-0.01))
    assert not Tabi(keep=0).verdict(request(), fold([TextDelta(text="x"), *deltas[1:]])).keeps


def recorded(count: int, seed: int = 0) -> tuple[list[float], list[float]]:
    """A model that is right less often than it says."""
    chance = np.random.default_rng(seed)
    sure = chance.uniform(0.3, 0.999, count)
    return sure.tolist(), (chance.random(count) < sure**2).astype(float).tolist()


@pytest.mark.row("mi-tabi", "mechanism")
def test_recorded_answers_calibrate_what_the_model_says() -> None:
    (sure, right), (later, truth) = recorded(800), recorded(4000, seed=1)
    known = Known.of("small", sure, right)
    said = np.array([known.chance(one) for one in later])
    assert calibration_error(np.array(later), np.array(truth)) > 0.1
    assert calibration_error(said, np.array(truth)) < 0.05


@pytest.mark.row("mi-tabi", "mechanism")
def test_of_wrong_answers_no_more_than_the_risk_are_kept() -> None:
    later, truth = recorded(3000, seed=99)
    passed = []
    for seed in range(60):
        known = Known.of("small", *recorded(200, seed=seed))
        wrong = [one > known.threshold(0.1) for one, right in zip(later, truth, strict=True) if not right]
        passed.append(np.mean(wrong))
    assert 0.05 < np.mean(passed) <= 0.1 + 0.01


def test_the_file_of_recorded_answers_is_used_and_refused_with_a_remedy(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "answers.jsonl"
    lines = [
        {"prompt": "q", "outcomes": {"small": r}, "said": {"small": s}}
        for s, r in zip(*recorded(400), strict=True)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    models, _, _ = service(Tabi(calibration=str(file), keep=0.8))
    assert asked(models, "0.85").message.content == "large", "of such answers 0.72 are right"
    assert asked(models, "0.95").message.content == "small"
    models, _, _ = service(Tabi(calibration=str(file), risk=0.05))
    assert [asked(models, sure).message.content for sure in ("0.8", "0.998")] == ["large", "small"]
    with pytest.raises(InvalidRequest, match="there are none"):
        Tabi(risk=0.05)
    file.write_text("\n".join(map(json.dumps, lines[:5])), "utf-8")
    with pytest.raises(InvalidRequest, match="too few to calibrate"):
        Tabi(calibration=str(file))
