"""A standby answers where a model fails or does not begin in time; the answer and the trace say so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agent_support import run
from pentad.application.config import RemoteBackend, Settings
from pentad.application.wiring import _standbys
from pentad.errors import BackendFailed, InvalidRequest, Overloaded, Unavailable
from pentad.execution.backend import Delta, NoticeDelta, StreamDone, TextDelta
from pentad.model.prices import Price
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.model.standby import Standby
from pentad.testing.backends import ScriptedBackend, Turn
from pentad.types import Message, Request, Usage

USED = Usage(prompt_tokens=10, completion_tokens=10)


class Pair:
    """A far model and its standby, behind one service with a clock that is set."""

    def __init__(self, far: Sequence[Turn], near: Sequence[Turn], **options: Any) -> None:
        self.far, self.near = ScriptedBackend(far, model="far"), ScriptedBackend(near, model="near")
        self.now_s = 100.0
        self.models = ModelService(
            {"far": self.far, "near": self.near},
            router=Fixed(),
            standbys={"far": Standby(**{"model": "near", "after_s": 0.05, **options})},
            prices={"far": Price(prompt=1e6, completion=1e6)},
            clock=lambda: self.now_s,
        )

    async def ask(self, model: str = "far") -> list[Delta]:
        request = Request(id="r", model=model, messages=(Message(role="user", content="Hi"),))
        return [delta async for delta in self.models.stream(request)]


def text(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


@pytest.mark.row("ml-gpt4", "mechanism")
@pytest.mark.parametrize(
    ("turn", "why"),
    [
        ([Unavailable("the endpoint is not there")], "the endpoint is not there"),
        ([Overloaded("too many requests")], "too many requests"),
        ([BackendFailed("it failed (500)")], "it failed (500)"),
        ([asyncio.Event()], "it did not begin within 0.05 s"),
    ],
)
def test_the_standby_answers_and_the_reason_is_told_and_traced(turn: Turn, why: str) -> None:
    pair = Pair([turn], [["near", " said", USED]])
    deltas = run(pair.ask())
    assert deltas[0] == NoticeDelta(text=f"'near' answers in place of 'far': {why}")
    assert text(deltas) == "near said"
    done = deltas[-1]
    assert isinstance(done, StreamDone)
    decision = done.usage.decisions[0]
    assert (decision.layer, decision.policy, decision.chosen) == ("model", "standby", "near")
    assert decision.candidates == (("far", None), ("near", None))
    assert decision.constraint == why
    # It costs what the one costs that answered.
    assert done.usage.cost == 0
    assert pair.far.closed_early == 1


def test_a_model_that_answers_in_time_is_left_alone() -> None:
    pair = Pair([["far said", USED]], [])
    deltas = run(pair.ask())
    assert text(deltas) == "far said"
    done = deltas[-1]
    assert isinstance(done, StreamDone)
    assert done.usage.cost == 20
    assert not any(isinstance(delta, NoticeDelta) for delta in deltas)
    assert pair.near.requests == []


def test_a_refusal_of_the_request_and_a_failure_amid_the_answer_are_no_cause() -> None:
    refused = Pair([[InvalidRequest("no such field")]], [])
    with pytest.raises(InvalidRequest, match="no such field"):
        run(refused.ask())
    broken = Pair([["far ", BackendFailed("it broke off")]], [])
    with pytest.raises(BackendFailed, match="it broke off"):
        run(broken.ask())
    assert refused.near.requests == broken.near.requests == []


def test_what_failed_is_not_asked_again_for_a_while() -> None:
    pair = Pair([[Unavailable("gone")], ["back"]], [["near"]] * 2, again_s=30.0)
    assert text(run(pair.ask())) == "near"
    pair.now_s += 29.9
    deltas = run(pair.ask())
    assert deltas[0] == NoticeDelta(text="'near' answers in place of 'far': it failed lately: gone")
    assert len(pair.far.requests) == 1
    pair.now_s += 0.2
    assert text(run(pair.ask())) == "back"


def test_where_both_fail_both_are_named() -> None:
    pair = Pair([[Unavailable("gone")]], [[Overloaded("too many")]])
    with pytest.raises(
        Unavailable, match=r"'far' does not answer \(gone\), and its standby 'near' cannot: too"
    ):
        run(pair.ask())


def test_other_models_have_no_standby() -> None:
    pair = Pair([], [[Unavailable("gone")]])
    with pytest.raises(Unavailable, match="gone"):
        run(pair.ask("near"))


def test_closing_the_answer_closes_the_one_who_gives_it() -> None:
    pair = Pair([[Unavailable("gone")]], [["near", asyncio.Event()]])

    async def scenario() -> None:
        request = Request(id="r", model="far", messages=(Message(role="user", content="Hi"),))
        stream = pair.models.stream(request)
        assert isinstance(await anext(stream), NoticeDelta)
        await anext(stream)
        await stream.aclose()
        assert pair.near.closed_early == 1

    run(scenario())


def test_a_standby_is_a_local_model_and_its_times_are_checked() -> None:
    far = RemoteBackend(name="far", url="https://far.example/v1", standby="small", standby_after_s=1.5)
    settings = Settings(models=("small",), backends=(far,))
    assert _standbys(settings, ["small"]) == {"far": Standby(model="small", after_s=1.5)}
    with pytest.raises(InvalidRequest, match="the standby 'small' of backend 'far' is no local") as refused:
        _standbys(settings, ["other"])
    assert refused.value.hint == "name one of `models`: other"
    with pytest.raises(InvalidRequest, match="after_s is 0"):
        Standby(model="small", after_s=0)
