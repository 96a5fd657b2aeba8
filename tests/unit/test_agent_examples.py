"""Examples in the prompt: the nearest in meaning, as turns, recorded, and never more than fit."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace

import pytest
from test_agent_context import said, wanted

from agent_support import harness, run, spec
from pentad.choice import Choice, build
from pentad.errors import ContextLengthExceeded, InvalidRequest
from pentad.model.relevance import Relevance
from pentad.testing.agents import WordEmbedder

CASES = {
    "where is my parcel": "parcel",
    "the parcel came broken": "damage",
    "I forgot my password": "account",
    "change my address": "account",
    "the shop is closed": "hours",
}


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps({"input": a, "output": b}) + "\n" for a, b in CASES.items()))
    return path


def chosen(file: pathlib.Path, k: int = 2) -> Choice:
    return Choice(name="examples", options={"file": str(file), "k": k})


@pytest.mark.row("ma-semantic-icl", "mechanism")
def test_the_nearest_examples_stand_before_the_conversation_in_every_prompt(
    tmp_path: pathlib.Path, file: pathlib.Path
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["parcel"], ["account"]], embedder=True) as h:
            agent = spec(context=chosen(file), instructions="Name the intent.")
            first = await h.work(agent, "my broken parcel, where")
            await h.work(agent, "forgot the password")
            one, two = (request.messages or () for request in h.backend.requests)
            assert [m.content for m in one[1:5]] == [
                "the parcel came broken",
                "damage",
                "where is my parcel",
                "parcel",
            ]
            assert [m.role for m in one[1:5]] == ["user", "assistant"] * 2
            assert two[3].content == "I forgot my password"
            (answered,) = [r.event for r in h.records(first.run_id) if r.kind == "model_answered"]
            (decision,) = [d for d in answered.usage.decisions if d.subject == "examples"]  # type: ignore[union-attr]
            assert decision.chosen == "2 of 5"
            assert [name for name, _ in decision.candidates] == [
                "where is my parcel",
                "the parcel came broken",
            ]

    run(scenario())


@pytest.mark.row("ma-semantic-icl", "mechanism")
@pytest.mark.parametrize("limit", [8, 12, 16, 24, 60])
def test_examples_leave_before_what_is_pinned_does(file: pathlib.Path, limit: int) -> None:
    async def embed(texts: object) -> list[list[float]]:
        return WordEmbedder().embed_counted(texts)[0]  # type: ignore[arg-type]

    given = replace(wanted([6, 6], limit=limit), relevance=Relevance(embed))
    built = run(build("context", chosen(file, k=3)).build(given))
    assert built.tokens <= limit
    assert said(built)[-1] == "the"
    (decision,) = built.decisions("examples", limit, 0.0)[-1:]
    shown = {8: 0, 12: 1, 16: 2, 24: 3, 60: 3}[limit]
    assert decision.chosen == f"{shown} of 5"


def test_a_file_that_is_none_is_told(tmp_path: pathlib.Path) -> None:
    builder = build("context", chosen(tmp_path / "nope.jsonl"))
    with pytest.raises(InvalidRequest, match="No such file"):
        run(builder.build(wanted([3])))
    (tmp_path / "bad.jsonl").write_text('{"input": "a", "output": "b"}\n{"input": "a"}\n')
    with pytest.raises(InvalidRequest, match="line 2 has no texts"):
        run(build("context", chosen(tmp_path / "bad.jsonl")).build(wanted([3])))
    with pytest.raises(ContextLengthExceeded):
        run(build("context", Choice(name="examples")).build(wanted([3], limit=4)))
