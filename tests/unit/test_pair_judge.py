"""A model as the judge of two answers: both orders, a letter's probability, no gain from standing first."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

from pentad.api import Model
from pentad.application.pair_judge import Judgement, judged
from pentad.application.services import Services
from pentad.execution.backend import TextDelta, TokenLogprob
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import Request


def judge(likes: Callable[[str], float], first: str, second: str) -> tuple[Judgement, ScriptedBackend]:
    """The judgement of a model that finds A better with a probability that `likes` gives for the prompt."""

    def turn(request: Request) -> list[TextDelta]:
        if request.format.kind != "choice":
            return []
        (letter,) = request.format.value
        a = likes((request.messages or ())[-2 if request.continues else -1].content)
        chance = a if letter == "A" else 1 - a
        return [
            TextDelta(text=letter, logprobs=(TokenLogprob(text=letter, data=b".", logprob=math.log(chance)),))
        ]

    backend = ScriptedBackend([turn], repeat=True)
    model = Model(service=Services(models=ModelService({"scripted": backend}, router=Fixed())))
    return asyncio.run(judged(model, "What is 2 + 2?", first, second)), backend


@pytest.mark.row("be-fastchat", "mechanism", claims=(1,))
def test_a_judge_that_knows_prefers_the_better_one_wherever_it_stands() -> None:
    def knows(prompt: str) -> float:
        return 0.9 if "Answer A: four" in prompt else 0.1

    found, backend = judge(knows, "four", "five")
    assert found.better == 0
    assert found.first == pytest.approx(0.9)
    assert found.leaning == pytest.approx(0)
    assert judge(knows, "five", "four")[0].better == 1
    asked = {(request.messages or ())[1].content.split("\n\n")[1] for request in backend.requests}
    assert asked == {"Answer A: four", "Answer A: five"}
    assert len(found.usage) == 2


def test_a_judge_that_takes_whatever_stands_first_says_nothing() -> None:
    found, _ = judge(lambda _: 0.95, "four", "five")
    assert found.first == pytest.approx(0.5)
    assert found.leaning == pytest.approx(0.9)
    assert found.better is None or abs(found.first - 0.5) < 1e-9
