"""Answers that are proven equal: what differs between requests and changes nothing, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

from pentad.execution.backend import ChoiceDone
from pentad.model.answer_cache import AnswerCache
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import Message, Request, Sampling, Usage


def asked(text: str = "hello", **sampling: Any) -> Request:
    made = Sampling(**{"temperature": 0.0, **sampling})
    return Request(id="r", model="m", messages=(Message(role="user", content=text),), sampling=made)


def words(request: Request, draw: int) -> tuple[list[str], str]:
    """The words of a model whose answer depends on the request as a real one's does, and why it ends."""
    s = request.sampling
    told = [request.messages, s.presence_penalty, s.stop]
    if s.temperature > 0:
        told += [s.temperature, s.top_p, s.top_k, s.min_p, draw if s.seed is None else s.seed]
    digest = hashlib.sha256(repr(told).encode()).hexdigest()
    whole = [f"{digest[i]} " for i in range(1 + int(digest[-1], 16))]
    if s.max_tokens is not None and s.max_tokens < len(whole) + 1:
        return whole[: s.max_tokens], "length"
    return whole, "stop"


class Served:
    """That model, with and without a cache in front."""

    def __init__(self) -> None:
        self.draws = itertools.count()
        self.backend = ScriptedBackend([self._turn], repeat=True)
        self.cache = AnswerCache(1 << 22, clock=lambda: 0.0)
        self.models = ModelService({"m": self.backend}, router=Fixed(), answers=self.cache)

    def _turn(self, request: Request) -> Sequence[Any]:
        made, reason = words(request, next(self.draws))
        return [*made, ChoiceDone(reason=reason), Usage(prompt_tokens=3, completion_tokens=len(made))]  # type: ignore[arg-type]

    def answer(self, request: Request) -> tuple[str, str]:
        done = asyncio.run(self.models.complete(request))
        return done.message.content, done.choices[0].reason


@pytest.mark.parametrize(
    ("first", "again", "hits"),
    [
        ({}, {"seed": 7}, 1),
        ({"top_p": 0.5}, {"top_k": 3, "min_p": 0.1}, 1),
        ({"max_tokens": 100}, {"max_tokens": 50}, 1),
        ({"max_tokens": 50}, {"max_tokens": 100}, 0),
        ({}, {"max_tokens": 100}, 1),
        ({"max_tokens": 1}, {"max_tokens": 1}, 1),
        ({}, {"max_tokens": 1}, 0),
        ({}, {"presence_penalty": 1.0}, 0),
        ({}, {"logprobs": 2}, 0),
        ({"logprobs": 2, "top_p": 0.5}, {"logprobs": 2}, 0),
        ({"temperature": 1.0, "seed": 1}, {"temperature": 1.0, "seed": 1}, 1),
        ({"temperature": 1.0, "seed": 1}, {"temperature": 1.0, "seed": 2}, 0),
        ({"temperature": 1.0, "seed": 1}, {"temperature": 1.0, "seed": 1, "top_p": 0.5}, 0),
    ],
)
def test_what_changes_nothing_is_no_other_request(
    first: dict[str, Any], again: dict[str, Any], hits: int
) -> None:
    served = Served()
    served.answer(asked(**first))
    served.answer(asked(**again))
    assert served.cache.hits == hits


def test_no_answer_of_two_thousand_is_that_of_another_request() -> None:
    """The rate of false hits, over requests that differ in what matters and in what does not."""
    served, chance = Served(), random.Random(3)
    false = known = repeated = 0
    seen: list[Request] = []
    for _ in range(2000):
        request = asked(
            text=chance.choice("abc"),
            temperature=chance.choice((0.0, 0.0, 0.0, 0.7)),
            seed=chance.choice((None, 1, 2)),
            top_p=chance.choice((1.0, 0.5)),
            top_k=chance.choice((0, 5)),
            max_tokens=chance.choice((None, 1, 4, 8, 16, 64)),
            presence_penalty=chance.choice((0.0, 1.0)),
        )
        repeated += (
            request.sampling.temperature == 0 or request.sampling.seed is not None
        ) and request in seen
        seen.append(request)
        before = served.cache.hits
        text, reason = served.answer(request)
        if served.cache.hits > before:
            known += 1
            made, ended = words(request, -1)
            false += (text, reason) != ("".join(made), ended)
    assert known > repeated * 1.05
    assert false == 0
