"""The planner `adaptive`: tools are called only where they gain more than they cost."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pytest

from agent_support import call, harness, run, spec
from pentad.agent.tools.functions import tool
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.execution.backend import ChoiceDone, TextDelta
from pentad.testing.backends import Item
from pentad.types import Budget, Request


@tool(effects="none")
def look(what: str) -> str:
    """Looks something up."""
    return f"{what} is 42"


def draws(*texts: str) -> list[Item]:
    said: list[Item] = [TextDelta(text=text, choice=i) for i, text in enumerate(texts)]
    return [*said, *(ChoiceDone(reason="stop", choice=i) for i in range(len(texts)))]


def script(*texts: str) -> list[object]:
    """Draws from the model alone, then a call and an answer."""

    def turn(request: Request) -> Sequence[Item]:
        if request.sampling.n > 1:
            return draws(*texts[: request.sampling.n])
        told = any(message.role == "tool" for message in request.messages or ())
        return ["It is 42."] if told else [call("look", what="it")]

    return [turn]


def agent(**options: object) -> object:
    return spec(tools=("look",), planner=Choice(name="adaptive", options=options))


@pytest.mark.row("fut-adaptive-api", "mechanism")
@pytest.mark.parametrize(
    ("said", "options", "calls"),
    [
        (("Paris", "paris.", "Paris", "Paris"), {}, 0),
        (("Paris", "Rome", "Oslo", "Paris"), {}, 1),
        (("unknown", "unknown", "Unknown.", "unknown"), {}, 1),
        (("Paris", "Rome", "Paris", "Paris"), {}, 0),
        (("Paris", "Rome", "Paris", "Paris"), {"price": 0.1}, 1),
        (("Paris", "Rome", "Oslo", "Bonn"), {"price": 0.9}, 0),
        (("Paris", "Paris", "Rome", "Rome"), {"reached": 0.5}, 0),
    ],
)
def test_tools_are_called_where_what_they_gain_is_more_than_their_price(
    said: tuple[str, ...], options: dict[str, object], calls: int, tmp_path: pathlib.Path
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, script(*said), [look], repeat=True) as h:
            state = await h.work(agent(**options), "What is it?")  # type: ignore[arg-type]
            assert state.status == "answered"
            assert sum(len(e.results) for e in state.exchanges) == calls
            assert state.answer == ("It is 42." if calls else said[0])
            (decision,) = [
                d for d in h.runtime.explain(state.run_id).decisions if d.subject == "tools or none"
            ]
            assert decision.chosen == ("tools" if calls else "none")
            assert {name for name, _ in decision.candidates} == {"none", "tools"}

    run(scenario())


def test_where_two_draws_cannot_be_paid_for_the_tools_are_called(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, script("Paris", "Paris"), [look], repeat=True) as h:
            made = spec(
                tools=("look",), planner=Choice(name="adaptive"), budget=Budget(tokens=700), max_tokens=64
            )
            state = await h.work(made, "What is it?")
            assert all(request.sampling.n == 1 for request in h.backend.requests)
            assert sum(len(e.results) for e in state.exchanges) == 1

    run(scenario())


def test_a_planner_that_is_none_or_itself_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="then names 'adaptive' itself"):
        build("planner", Choice(name="adaptive", options={"then": "adaptive"}))
    with pytest.raises(InvalidRequest, match="unknown planner 'reakt'"):
        build("planner", Choice(name="adaptive", options={"then": "reakt"}))
