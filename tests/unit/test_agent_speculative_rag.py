"""speculative_rag: subsets that each show every side, drafts asked at once, one picked by the run's model."""

from __future__ import annotations

import asyncio
import pathlib
import re
from typing import Any

import numpy as np
import pytest

from agent_support import call, context, harness, run, spec
from pentad.agent.model_events import ModelAnswered
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.base import Tool, ToolServices
from pentad.agent.tools.invocation import Outcome
from pentad.agent.tools.invocation import call as carry_out
from pentad.agent.tools.passage_subsets import clusters, subsets, word_vectors
from pentad.errors import InvalidRequest
from pentad.execution.backend import PromptDelta, TokenLogprob
from pentad.registry import load
from pentad.testing.agents import scripted_models
from pentad.types import Request

ROW = pytest.mark.row("rag-speculative", "mechanism")
TEXTS = {
    "tower.txt": "The tower of the harbour is 41 metres tall.",
    "tower-old.txt": "The old tower of the harbour was 30 metres tall and fell.",
    "tower-plan.txt": "A plan of the tower of the harbour says 55 metres tall.",
    "fish.txt": "Fish is sold at the harbour tower on Monday morning.",
}
QUESTION = "How tall is the tower of the harbour?"


def built(folder: pathlib.Path, **options: Any) -> Tool:
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    services = ToolServices(models=scripted_models([])[0])
    made: Tool = load("tool", "speculative_rag")(services, folder=str(folder), **options)
    return made


class Models:
    """A drafter that reads the first number, and a verifier that believes one of the answers."""

    def __init__(self, believed: str, at_once: int = 1) -> None:
        self.believed, self.asked, self.scored = believed, list[tuple[str, str]](), list[str]()
        self._barrier = asyncio.Barrier(at_once)

    async def ask(self, model: str, system: str, text: str, max_tokens: int) -> str:
        assert "Rationale:" in system
        self.asked.append((model, text))
        await self._barrier.wait()  # never passed unless so many are asked at once
        found = re.search(r"\d+ metres", text)
        return f"Rationale: it says so.\nAnswer: {found[0]}" if found else "Rationale: -\nAnswer: Not found."

    async def surprise(self, text: str, model: str) -> list[tuple[int, int, float]]:
        assert model == "", "the run's own model scores"
        self.scored.append(text)
        low = self.believed in text
        return [(m.start(), m.end(), 0.5 if low else 2.0) for m in re.finditer(r"\S+\s?", text)]

    def use(self, tool: Tool) -> Outcome:
        asked = context(ask_other=self.ask, surprise=self.surprise)
        return run(carry_out(tool, {"question": QUESTION}, asked))


@ROW
def test_a_subset_has_one_of_every_cluster_and_no_passage_is_left_out() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9], [0.95, 0.0]])
    groups = clusters(rows, 2)
    assert groups == [[0, 2, 4], [1, 3]]
    assert subsets(groups, 3) == [(0, 1), (2, 3), (1, 4)]
    assert subsets([[0], [1]], 3) == [(0, 1)]  # there is no other one
    assert clusters(rows, 1) == [[0, 1, 2, 3, 4]]
    assert clusters(np.ones((3, 2)), 3) == [[0, 1, 2]]  # equal rows are not told apart


@ROW
def test_passages_that_say_the_same_fall_into_one_cluster() -> None:
    vectors = word_vectors(["red apples grow", "apples grow red", "boats sail far", "far sail the boats"])
    assert clusters(vectors, 2) == [[0, 1], [2, 3]]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)


@ROW
def test_the_drafts_are_asked_at_once_each_once_and_the_believed_one_is_the_answer(
    tmp_path: pathlib.Path,
) -> None:
    models = Models("30 metres", at_once=3)
    outcome = models.use(built(tmp_path, drafts=3, per_draft=1, k=4, drafter="scripted"))
    assert outcome.status == "ok"
    assert outcome.content == "30 metres (from tower-old.txt)"
    assert [model for model, _ in models.asked] == ["scripted"] * 3
    assert len(models.scored) == len(set(models.scored))
    (decision,) = outcome.decisions
    scores = dict(decision.candidates)
    assert max(scores, key=lambda answer: scores[answer] or 0) == decision.chosen == "30 metres"
    assert scores["30 metres"] == pytest.approx(-1.0)  # half a nat a token, and half a nat for "Yes"


@ROW
def test_a_draft_without_an_answer_is_not_scored_and_said(tmp_path: pathlib.Path) -> None:
    models = Models("41 metres", at_once=4)
    outcome = models.use(built(tmp_path, drafts=4, per_draft=1, k=4))
    assert outcome.content.startswith("41 metres")
    assert len(models.scored) == 3  # the fish has no height
    assert outcome.decisions[0].constraint == "3 of 4 drafts were of use"
    for text in TEXTS:
        (tmp_path / text).write_text("Fish of the harbour.")
    nothing = Models("")
    tool: Tool = load("tool", "speculative_rag")(
        ToolServices(models=scripted_models([])[0]), folder=str(tmp_path), drafts=1
    )
    assert nothing.use(tool).content == "The passages that were found do not answer it."


@pytest.mark.parametrize(
    ("options", "says"),
    [({"drafter": "nobody"}, "served: scripted"), ({"drafts": 0}, "drafts"), ({"per_draft": 0}, "per_draft")],
)
def test_options_are_checked(tmp_path: pathlib.Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        built(tmp_path, **options)
    assert says in f"{caught.value} {caught.value.hint}"


def drafted(request: Request) -> list[str]:
    """What a drafter says to a passage: its first number."""
    found = re.search(r"\d+ metres", request.messages[-1].content if request.messages else "")
    assert found is not None
    return [f"Rationale: it says so.\nAnswer: {found[0]}"]


def scored(request: Request) -> list[PromptDelta]:
    """How likely each word of a prompt is to a model that believes 41."""
    assert request.text is not None
    logprob = -0.5 if "41 metres" in request.text else -2.0
    words = re.findall(r"\S+\s?", request.text)
    return [PromptDelta(tokens=tuple(TokenLogprob(text=w, data=w.encode(), logprob=logprob) for w in words))]


def test_a_model_that_scores_no_texts_is_told_and_picks_nothing(tmp_path: pathlib.Path) -> None:
    models = Models("41 metres")

    async def nothing(text: str, model: str) -> list[tuple[int, int, float]]:
        return []

    asked = context(ask_other=models.ask, surprise=nothing)
    outcome = run(carry_out(built(tmp_path, drafts=1), {"question": QUESTION}, asked))
    assert outcome.status == "failed"
    assert "use question_answering" in outcome.content


@ROW
def test_in_a_run_the_drafts_and_their_scores_are_of_its_budget(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    built(folder)
    turns = [[call("speculative_rag", question=QUESTION)], drafted, drafted, scored, scored, ["41 metres"]]
    options = {"speculative_rag": {"folder": str(folder), "drafts": 2, "per_draft": 1, "k": 2}}

    async def scenario() -> None:
        async with harness(tmp_path, turns) as h:
            state = await h.work(spec(tools=("speculative_rag",), tool_options=options), QUESTION)
            events = [record.event for record in h.records(state.run_id)]
            answers = [event for event in events if isinstance(event, ModelAnswered)]
            assert [event.purpose for event in answers] == ["act", "tool", "tool", "reduce", "reduce", "act"]
            (returned,) = [event for event in events if isinstance(event, ToolReturned)]
            assert returned.content == "41 metres (from tower.txt)"
            assert returned.source == "one of 2 drafts"
            assert state.ledger.used.tokens == sum(event.usage.total_tokens for event in answers)

    run(scenario())
