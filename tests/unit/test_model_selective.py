"""Selective reduction: what a model would not have guessed stays; scoring is placed, journaled, budgeted."""

from __future__ import annotations

import asyncio
import pathlib
from dataclasses import replace
from typing import Any

import pytest
from test_model_reduction import DOCUMENT, reduced, reducible

from agent_support import call, harness, run, spec
from pentad.agent.budget import Budget
from pentad.agent.surprise import parts, surprises
from pentad.agent.tool_events import ResultReduced
from pentad.agent.tools.base import Tool, ToolContext
from pentad.choice import Choice
from pentad.execution.backend import PromptDelta, TokenLogprob
from pentad.model.reduction.coarse_to_fine import CoarseToFine
from pentad.model.reduction.information import means
from pentad.model.reduction.selective import Selective, phrases


def scored(text: str, rare: str = "1843") -> tuple[TokenLogprob, ...]:
    """Tokens of up to three letters; those of words with a digit are improbable, the rest are not."""
    found = []
    for word in text.replace(" ", "\0 ").split("\0"):
        for at in range(0, len(word), 3):
            piece = word[at : at + 3]
            found.append(
                TokenLogprob(text=piece, data=piece.encode(), logprob=-9.0 if rare in word else -0.5)
            )
    return tuple(found)


@pytest.mark.row("pc-selective", "mechanism")
def test_what_the_model_would_not_have_guessed_stays_in_order() -> None:
    async def surprise(text: str, model: str) -> list[tuple[int, int, float]]:
        assert model == "small"

        async def score(part: str) -> tuple[TokenLogprob, ...]:
            return scored(part)

        return await surprises(text, score)

    given = reducible(DOCUMENT)
    made = reduced(Selective(max_tokens=40, model="small"), replace(given, surprise=surprise))
    assert "1843" in made.text
    assert made.after_tokens <= 40
    assert max(made.scores, key=lambda one: one[1] or 0.0)[0].endswith("1843.")
    assert made.text.endswith(f"[reduced from {made.before_tokens} tokens]")


@pytest.mark.row("pc-selective", "mechanism")
def test_tokens_are_placed_in_the_text_also_across_parts_and_scripts() -> None:
    text = "Grüße 灯塔 " * 400
    seen: list[str] = []

    async def score(part: str) -> tuple[TokenLogprob, ...]:
        seen.append(part)
        data = part.encode()
        begin = TokenLogprob(text="<s>", data=b"", logprob=0.0)
        pieces = [data[at : at + 4] for at in range(0, len(data), 4)]
        return (begin, *(TokenLogprob(text="?", data=piece, logprob=-1.0) for piece in pieces))

    found = asyncio.run(surprises(text, score))
    assert "".join(seen) == text
    assert len(seen) > 1
    assert found == sorted(found)
    assert all(0 <= begin <= end <= len(text) and bits == 1.0 for begin, end, bits in found)
    assert found[-1][1] == len(text)


def test_phrases_are_the_text_but_for_space_and_end_at_marks() -> None:
    text = "The harbour opens at noon, always. 灯塔" + "建" * 100
    spans = phrases(text)
    assert [text[begin:end] for begin, end in spans][:3] == ["The harbour opens at", "noon,", "always."]
    assert "".join(text[b:e] for b, e in spans).replace(" ", "") == text.replace(" ", "")
    assert means([(0, 4), (5, 9)], [(0, 2, 1.0), (2, 4, 3.0), (6, 7, 5.0)]) == [2.0, 5.0]


def library() -> Tool:
    async def read(arguments: Any, context: ToolContext) -> str:
        return DOCUMENT

    return Tool(name="read", description="Reads.", parameters={"type": "object"}, call=read, effects="none")


@pytest.mark.row("pc-selective", "mechanism")
def test_scoring_is_a_call_of_the_run_journaled_and_within_its_budget(tmp_path: pathlib.Path) -> None:
    pieces = [PromptDelta(tokens=scored(DOCUMENT[begin:end])) for begin, end in parts(DOCUMENT)]
    turns = [[call("read")], *([piece] for piece in pieces), ["1843"]]
    reduce = Choice(name="selective", options={"max_tokens": 40})

    async def scenario() -> None:
        async with harness(tmp_path, turns, [library()]) as h:
            state = await h.work(spec(tools=("read",), reduce=reduce), "when")
            asked = [r.event for r in h.records(state.run_id) if r.kind == "model_asked"]
            purposes = [event.purpose for event in asked]  # type: ignore[union-attr]
            assert purposes == ["act", *["reduce"] * (len(purposes) - 2), "act"]
            assert len(purposes) > 3
            (event,) = [r.event for r in h.records(state.run_id) if isinstance(r.event, ResultReduced)]
            assert event.after_tokens <= 40 < event.before_tokens
            assert all(q.sampling.max_tokens == 0 for q in h.backend.requests[1:-1])
            assert "".join(q.text or "" for q in h.backend.requests[1:-1]) == DOCUMENT
        async with harness(tmp_path, turns, [library()], journal="other.db") as h:
            small = spec(tools=("read",), reduce=reduce, budget=Budget(tokens=700))
            assert (await h.work(small, "when")).status == "budget_exceeded"

    run(scenario())


@pytest.mark.row("pc-llmlingua", "mechanism")
def test_sentences_go_first_and_then_words_scored_by_what_is_left() -> None:
    asked: list[str] = []

    async def surprise(text: str, model: str) -> list[tuple[int, int, float]]:
        asked.append(text)

        async def score(part: str) -> tuple[TokenLogprob, ...]:
            return scored(part)

        return await surprises(text, score)

    made = reduced(CoarseToFine(max_tokens=24), replace(reducible(DOCUMENT), surprise=surprise))
    assert asked[0] == DOCUMENT
    assert len(asked[1]) < len(DOCUMENT) / 10
    assert asked[1].startswith("Harbour report.")
    assert "The lighthouse was built in 1843." in asked[1]
    assert "1843." in made.text
    assert made.after_tokens <= 24
    assert all(DOCUMENT[begin:end] in made.text for begin, end in made.kept)


@pytest.mark.row("pc-llmlingua", "mechanism")
def test_words_are_judged_where_they_stand() -> None:
    """The improbable words of two sentences far apart are kept, whatever stood between."""
    filler = "plain words here. " * 80
    text = f"first 1843 thing. {filler}last 1843 thing."

    async def surprise(part: str, model: str) -> list[tuple[int, int, float]]:
        async def score(piece: str) -> tuple[TokenLogprob, ...]:
            return scored(piece)

        return await surprises(part, score)

    made = reduced(CoarseToFine(max_tokens=16), replace(reducible(text), surprise=surprise))
    assert made.text.split("\n")[0].split().count("1843") == 2
