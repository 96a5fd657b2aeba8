"""Retrieval of tools and reduction of texts with the real embedding model: does what matters stay?"""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import pytest

from agent_facts import facts
from agent_support import run, spec
from evidence.plugin import Measure
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.policy.base import Offerable
from pentad.agent.tools.policy.retrieve import Retrieve, cues, tool_text
from pentad.model.embedding import LocalEmbedder
from pentad.model.loading import open_model
from pentad.model.reduction.base import Reducible
from pentad.model.reduction.extractive import Extractive
from pentad.model.relevance import Relevance

DATA = pathlib.Path(__file__).parent.parent / "data"


def registry() -> tuple[tuple[Tool, ...], dict[str, str]]:
    """205 tools, and a question for each of 143 of them that does not use its name."""

    async def never(arguments: Any, context: ToolContext) -> str:
        raise AssertionError(f"{arguments} {context}")

    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    tools, questions = [], {}
    for line in (DATA / "tools_200.txt").read_text("utf-8").splitlines():
        told, _, question = line.partition(" | ")
        name, _, description = told.partition(": ")
        tools.append(Tool(name=name, description=description, parameters=schema, call=never))
        if question:
            questions[name] = question
    return tuple(tools), questions


@pytest.fixture(scope="module")
def relevance(minilm_path: pathlib.Path) -> Relevance:
    embedder = LocalEmbedder.open(minilm_path, name="minilm")

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return embedder.embed_counted(texts)[0]

    return Relevance(embed, encoder="minilm")


def hits(relevance: Relevance, tools: tuple[Tool, ...], questions: dict[str, str]) -> int:
    """For how many questions the right tool is among the five on offer."""
    found = 0
    for name, question in questions.items():
        state = RunState(run_id="r", spec=spec(), goal=question, tenant="t")
        offer = run(Retrieve(k=5).offer(Offerable(state=state, tools=tools), relevance), timeout_s=120)
        found += name in offer.tools
    return found


def test_of_two_hundred_tools_the_right_one_is_among_the_five_on_offer(
    relevance: Relevance, smollm2_path: pathlib.Path, measured: Measure
) -> None:
    """The table proposes 0.9 for the row `tool-select`; this is 0.895, so the row is not claimed.

    The questions are harsh: none uses its tool's name, and most none of its words.
    """
    tools, questions = registry()
    assert len(tools) >= 200
    nearest, words = (hits(each, tools, questions) for each in (relevance, Relevance(None)))
    print(f"right tool in the top 5: {nearest} of {len(questions)} by vectors, {words} by shared words")
    tokenizer = open_model(smollm2_path).tokenizer
    sizes = [
        len(tokenizer.encode(json.dumps([vars_of(tool) for tool in some]), special=False))
        for some in (tools, tools[:5])
    ]
    measured("right tool in the top 5", nearest / len(questions), at_least=0.87)
    measured("fewer prompt tokens than all tools", sizes[0] / sizes[1], at_least=10, unit=" times")


def test_goals_of_two_parts_find_both_tools_better_than_as_one_text(
    relevance: Relevance, measured: Measure
) -> None:
    tools, questions = registry()
    asked = list(questions.items())
    texts, names = [tool_text(tool) for tool in tools], [tool.name for tool in tools]
    hits = {"parts": 0, "whole": 0}
    pairs = [(asked[i], asked[i + 7]) for i in range(0, len(asked) - 7, 3)]
    for (one, first), (other, second) in pairs:
        goal = f"{first.rstrip('?.')}, and {second[0].lower()}{second[1:]}"
        state = RunState(run_id="r", spec=spec(), goal=goal, tenant="t")
        for way, looked_for in (("parts", cues(state)), ("whole", [goal])):
            scores = run(relevance.scores(looked_for, texts), timeout_s=120)
            best = [name for _, name in sorted(zip(scores, names, strict=True), reverse=True)[:8]]
            hits[way] += (one in best) + (other in best)
    print(f"tools of two-part goals in the top 8, of {2 * len(pairs)}: {hits}")
    points = 100 * (hits["parts"] - hits["whole"]) / (2 * len(pairs))
    measured("tools found by part above as one text", points, at_least=8, unit=" points")


def vars_of(tool: Tool) -> dict[str, Any]:
    """A tool as a prompt has it."""
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": json.loads(json.dumps(tool.parameters)),
    }


def test_what_a_question_asks_for_stays_in_a_long_document_that_is_cut_to_a_tenth(
    relevance: Relevance, measured: Measure
) -> None:
    """100 documents of 100 facts each; the one that is asked for must be among the few that stay."""
    source, told = random.Random(3), facts()
    kept = before = after = first = 0
    for fact in source.sample(told, 100):
        others = [other for other in told if other.text != fact.text]
        document = [each.text for each in source.sample(others, 99)]
        place = source.randrange(100)
        document.insert(place, fact.text)
        given = Reducible(
            text=". ".join(document), goal=fact.question, count=lambda t: len(t.split()), relevance=relevance
        )
        made = run(Extractive(max_tokens=len(given.text.split()) // 10).reduce(given), timeout_s=120)
        kept += fact.text in made.text
        first += place < 10
        before, after = before + made.before_tokens, after + made.after_tokens
    print(f"asked fact kept: {kept} of 100; the first tenth alone has {first}; {before} to {after} words")
    measured("asked fact kept", kept / 100, at_least=0.9)
    measured("of the words", after / before, at_most=0.1)
