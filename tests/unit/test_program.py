"""Programs of prompts: what they ask a model, in which order, and what they keep of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pentad.api import Model, Program
from pentad.application.services import Services
from pentad.errors import BackendFailed, Conflict, InvalidRequest
from pentad.execution.backend import TextDelta, TokenLogprob
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend, Turn
from pentad.types import Message, Request


def scored(likely: dict[str, Sequence[float]]) -> Turn:
    """A model that writes what it must, each word as likely as given; what is only computed has no text."""

    def turn(request: Request) -> list[TextDelta]:
        if request.format.kind != "choice":
            return []
        (text,) = request.format.value
        logprobs = tuple(TokenLogprob(text=".", data=b".", logprob=one) for one in likely[text])
        return [TextDelta(text=text, logprobs=logprobs)]

    return turn


def program(
    turns: Sequence[Turn], text: str = "", *, repeat: bool = False
) -> tuple[Program, ScriptedBackend]:
    backend = ScriptedBackend(turns, repeat=repeat)
    models = ModelService({"scripted": backend}, router=Fixed())
    return Model(service=Services(models=models)).program(text), backend


def run(work: Any) -> Any:
    return asyncio.run(work)


@pytest.mark.row("fw-sglang", "mechanism")
def test_what_is_generated_stands_behind_what_was_there() -> None:
    written, backend = program([["Paris"], ["2"]], "The capital of France is ")
    assert run(written.gen("city", max_tokens=4, stop=["."])) == "Paris"
    run(written.add(" has millions of people: ").gen("millions", regex="[0-9]+"))
    assert written.text == "The capital of France is Paris has millions of people: 2"
    assert (written["city"], written["millions"]) == ("Paris", "2")
    first, second = backend.requests
    assert (first.text, first.sampling.max_tokens, first.sampling.stop) == (
        "The capital of France is ",
        4,
        (".",),
    )
    assert second.text is not None
    assert second.text.startswith(f"{first.text}Paris"), "each call begins with the one before it"
    assert (second.format.kind, second.format.value) == ("regex", "(?:[0-9]+)")
    assert second.context.run_id == first.context.run_id
    assert (second.context.parent, second.context.hints.next) == (first.id, "model")


def test_a_conversation_goes_on_with_the_turn_that_the_assistant_has_begun() -> None:
    written, backend = program([["Rome."], [" Yes."]])
    written.system("Be brief.").user("A city?")
    run(written.gen("city"))
    run(written.add(" Large?").gen("large"))
    assert [request.continues for request in backend.requests] == [False, True]
    said = Message(role="assistant", content="Rome. Large?")
    assert backend.requests[1].messages is not None
    assert backend.requests[1].messages[-1] == said
    assert written.text.endswith("assistant: Rome. Large? Yes.")


@pytest.mark.row("fw-sglang", "mechanism")
def test_the_likeliest_option_is_added_per_token_or_as_a_whole() -> None:
    likely = {"no": [-2.0], "oh yes": [-1.5, -1.5]}
    for normalized, chosen in (("tokens", "oh yes"), ("none", "no")):
        written, backend = program([scored(likely)], "Sweet? ", repeat=True)
        assert run(written.select("sweet", ["no", "oh yes"], normalized=normalized)) == chosen  # type: ignore[arg-type]
        assert written.text == f"Sweet? {chosen}"
        assert backend.requests[0].sampling.max_tokens == 0, "the common text is computed first"
        assert backend.requests[0].context.hints.fan_out == 2
    assert written.scores == {"sweet": {"no": -2.0, "oh yes": -3.0}}


@pytest.mark.row("fw-sglang", "mechanism")
def test_branches_go_on_from_one_text_and_their_values_are_joined() -> None:
    written, backend = program([[], lambda request: [str(len(request.text or ""))]], "Tips:\n", repeat=True)

    async def scenario() -> None:
        branches = await written.fork(3)
        assert [(request.text, request.sampling.max_tokens) for request in backend.requests] == [
            ("Tips:\n", 0)
        ]
        await asyncio.gather(*(one.add("x" * i).gen("tip") for i, one in enumerate(branches)))
        assert {request.context.parent for request in backend.requests[1:]} == {backend.requests[0].id}
        written.join(*branches)

    run(scenario())
    assert written["tip"] == ["6", "7", "8"]
    assert written.text == "Tips:\n", "what branches wrote is added by who wants it"
    assert written.usage.completion_tokens == 3
    again = [request for request in backend.requests if request.sampling.max_tokens == 0]
    assert len(again) == 1


def test_what_cannot_be_meant_is_refused_with_what_can() -> None:
    with pytest.raises(Conflict, match="the model is not open; write: async with"):
        Model().program()
    written, _ = program([["x"]], "text")
    with pytest.raises(InvalidRequest, match="began as text has no turn of the user"):
        written.user("hello")
    with pytest.raises(InvalidRequest, match="give one of them"):
        run(written.gen(regex="a", schema={}))
    with pytest.raises(InvalidRequest, match="one or more different texts"):
        run(written.select("x", ["a", "a"]))
    with pytest.raises(InvalidRequest, match="give 1 or more"):
        run(written.fork(0))
    talk, _ = program([["x"]])
    with pytest.raises(InvalidRequest, match="cannot begin within an assistant's turn"):
        run(talk.user("q").add("The answer: ").gen(schema={"type": "object"}))
    silent, _ = program([["yes"]], "Sweet? ", repeat=True)
    with pytest.raises(BackendFailed, match=r"no log probabilities.*gen\(\) with a regex"):
        run(silent.select("x", ["yes"]))
