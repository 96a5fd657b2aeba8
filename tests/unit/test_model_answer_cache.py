"""Clipper's prediction cache, and replicas whose loss takes nobody else's requests with it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from test_resource_outages import LOAD, replay

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.execution.backend import Completion
from pentad.model.answer_cache import AnswerCache
from pentad.model.prices import Price
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.resource.simulator import Outage
from pentad.testing.backends import ScriptedBackend
from pentad.types import Message, Request, RunContext, Sampling, Usage

ROW = "ra-clipper"


def asked(text: str = "hello", **fields: object) -> Request:
    sampling = fields.pop("sampling", Sampling(temperature=0.0))
    message = Message(role="user", content=text)
    return Request(id="r", model="m", messages=(message,), sampling=sampling, **fields)  # type: ignore[arg-type]


class Served:
    """A model whose answers are counted, behind a cache."""

    def __init__(self, most_bytes: int = 1 << 20) -> None:
        self.backend = ScriptedBackend([["some ", "answer"]], repeat=True)
        self.cache = AnswerCache(most_bytes, clock=lambda: 7.0)
        self.models = ModelService(
            {"m": self.backend},
            router=Fixed(),
            answers=self.cache,
            prices={"m": Price(prompt=1e6, completion=1e6)},
        )

    def answers(self, *requests: Request) -> list[Completion]:
        async def run() -> list[Completion]:
            return [await self.models.complete(request) for request in requests]

        return asyncio.run(run())

    @property
    def computed(self) -> int:
        return len(self.backend.requests)


@pytest.mark.row(ROW, "mechanism", claims=(2,))
class TestCache:
    def test_what_is_asked_again_is_answered_without_the_model_and_costs_nothing(self) -> None:
        served = Served()
        first, again = served.answers(asked(), asked())
        assert served.computed == 1
        assert again.choices == first.choices
        assert first.usage.cost > 0
        assert again.usage.cost == 0
        assert again.usage.cached_tokens == again.usage.prompt_tokens == first.usage.prompt_tokens
        assert again.usage.completion_tokens == first.usage.completion_tokens
        assert [(d.policy, d.chosen) for d in again.usage.decisions][-1] == ("answer-cache", "kept")

    @pytest.mark.parametrize(
        "other",
        [
            asked("hello you"),
            asked(tenant="another"),
            asked(cache_salt="s"),
            asked(sampling=Sampling(temperature=0.0, max_tokens=3)),
            asked(continues=False, reasoning_tokens=5),
        ],
        ids=["prompt", "tenant", "salt", "sampling", "reasoning"],
    )
    def test_whatever_the_answer_depends_on_makes_it_another(self, other: Request) -> None:
        served = Served()
        served.answers(asked(), other)
        assert served.computed == 2

    def test_drawn_answers_are_kept_with_a_seed_alone(self) -> None:
        served = Served()
        drawn = asked(sampling=Sampling(temperature=1.0))
        served.answers(drawn, drawn)
        assert served.computed == 2
        seeded = asked(sampling=Sampling(temperature=1.0, seed=3))
        served.answers(seeded, seeded)
        assert served.computed == 3

    def test_what_has_a_label_is_never_kept(self) -> None:
        served = Served()
        secret = asked(context=RunContext(data_label="local"))
        served.answers(secret, secret)
        assert served.computed == 2
        assert served.cache.held_bytes == 0

    def test_an_answer_that_broke_off_is_not_kept(self) -> None:
        served = Served()
        served.backend = ScriptedBackend([["so", RuntimeError("broken")], ["whole"]])
        served.models = ModelService({"m": served.backend}, router=Fixed(), answers=served.cache)
        with pytest.raises(RuntimeError):
            served.answers(asked())
        (answer,) = served.answers(asked())
        assert answer.choices[0].message.content == "whole"

    def test_what_another_backend_of_the_name_said_is_not_given_again(self) -> None:
        """As an adapter that has taken another's place."""
        served = Served()
        served.answers(asked())
        held = served.cache.held_bytes
        served.backend = ScriptedBackend([["some ", "other"]], repeat=True)
        served.models = ModelService({"m": served.backend}, router=Fixed(), answers=served.cache)
        found = served.answers(asked(), asked())
        assert [one.choices[0].message.content for one in found] == ["some other"] * 2
        assert served.computed == 1
        assert served.cache.held_bytes <= held  # the old one left

    def test_those_used_last_stay_within_the_bytes(self) -> None:
        one = Served()
        one.answers(asked("a"))
        served = Served(most_bytes=int(2.5 * one.cache.held_bytes))
        served.answers(asked("a"), asked("b"), asked("a"), asked("c"))  # b leaves
        assert served.cache.held_bytes <= 2.5 * one.cache.held_bytes
        served.answers(asked("a"))
        assert served.computed == 3
        served.answers(asked("b"))
        assert served.computed == 4

    def test_an_impossible_size_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="answer_cache_bytes"):
            AnswerCache(0, clock=lambda: 0.0)


@pytest.mark.row(ROW, "effect", claims=(2,))
def test_a_popular_query_is_computed_once(measured: Measure) -> None:
    """200 queries drawn from 40 by Zipf's law: every one but the first of its kind hits the cache."""
    import numpy as np

    draw = np.random.default_rng(6)
    weights = 1 / np.arange(1, 41)
    names = [int(i) for i in draw.choice(40, 200, p=weights / weights.sum())]
    served = Served()
    served.answers(*(asked(f"query {i}") for i in names))
    repeats = len(names) - len(set(names))
    measured("repeated queries that were answered from the cache", served.cache.hits / repeats, at_least=1.0)
    assert served.computed == len(set(names))


@pytest.mark.row(ROW, "mechanism", claims=(3,))
def test_a_replica_that_crashes_drops_no_request_of_the_others_and_its_own_go_on_there() -> None:
    """Two replicas under one load, of which one is lost in the middle of its work."""
    whole = replay()
    broken = replay(Outage(device="box-1", at_s=0.6))
    assert len(broken.total.completed) == len(LOAD)
    others = [r for r in broken.total.records if r.engine == "box-0" and not r.moves]
    assert others
    assert all(r.refusal is None and len(r.tokens) == r.item.output_tokens for r in others)
    assert any(r.moves for r in broken.total.records)
    assert [r.tokens for r in broken.total.records] == [r.tokens for r in whole.total.records]


@pytest.mark.row(ROW, "mechanism", claims=(3,))
def test_a_model_that_fails_leaves_the_streams_of_the_others_alone() -> None:
    gate = asyncio.Event()

    async def run() -> tuple[Completion, str]:
        good = ScriptedBackend([["first ", gate, "second"]], model="good")
        bad = ScriptedBackend([["so", RuntimeError("its process is gone")]], model="bad")
        models = ModelService({"good": good, "bad": bad}, router=Fixed())
        going = asyncio.create_task(models.complete(dataclasses.replace(asked(), model="good")))
        for _ in range(20):
            await asyncio.sleep(0)
        assert good.requests
        try:
            await models.complete(dataclasses.replace(asked(), model="bad"))
            trouble = ""
        except RuntimeError as error:
            trouble = str(error)
        gate.set()
        return await going, trouble

    answer, trouble = asyncio.run(run())
    assert trouble == "its process is gone"
    assert answer.choices[0].message.content == "first second"
    assert answer.usage.completion_tokens == Usage(completion_tokens=2).completion_tokens
