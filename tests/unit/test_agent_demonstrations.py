"""Demonstrations: solved calls like the goal, shown as calls before prompts that may call tools."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace
from typing import Any

import pytest
from test_agent_context import wanted
from test_agent_tool_policies import TOOLS

from agent_support import call, harness, run, spec
from pentad.agent.context_builders.base import ContextInput
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest

SOLVED = (
    ("Will it rain in Oslo", "weather", {"city": "Oslo"}),
    ("Wake me at six", "alarm", {"hour": 6}),
    ("Say hello in French", "translate", {"text": "hello"}),
    ("How warm is it in Kyiv", "weather", {"city": "Kyiv"}),
)


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "solved.jsonl"
    lines = [{"input": text, "calls": [{"name": n, "arguments": a}]} for text, n, a in SOLVED]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


def chosen(file: pathlib.Path, **options: Any) -> Choice:
    return Choice(name="demonstrations", options={"file": str(file), **options})


def drafted(goal: str, *tools: str) -> ContextInput:
    given = wanted([])
    specs = tuple(tool.spec for tool in TOOLS if tool.name in tools)
    return replace(given, draft=replace(given.draft, tools=specs), state=replace(given.state, goal=goal))


def shown(given: ContextInput, choice: Choice) -> list[str]:
    """The requests that stand in front."""
    built = run(build("context", choice).build(given))
    return [m.content for m in built.messages[1:] if m.role == "user"][:-1]


@pytest.mark.row("tool-tptu2", "mechanism")
def test_the_nearest_solved_requests_stand_in_front_with_their_calls(file: pathlib.Path) -> None:
    given = drafted("Will it rain in Bergen", *(tool.name for tool in TOOLS))
    built = run(build("context", chosen(file, k=2)).build(given))
    assert [m.content for m in built.messages if m.role == "user"][:2] == [SOLVED[3][0], SOLVED[0][0]]
    assert [m.role for m in built.messages[5:9]] == ["user", "assistant", "tool", "assistant"]
    (made,) = built.messages[6].tool_calls
    assert (made.name, made.parsed()) == ("weather", {"city": "Oslo"})
    assert (built.messages[7].tool_call_id, built.messages[7].content) == (made.id, "ok")
    assert made.id != built.messages[2].tool_calls[0].id
    (decision,) = built.decisions("demonstrations", 100, 0.0)
    assert decision.chosen == "2 of 4"
    assert decision.candidates[0][0] == "Will it rain in Oslo"


@pytest.mark.row("tool-tptu2", "mechanism")
def test_what_calls_tools_that_are_not_on_offer_is_left_out_where_there_are_others(
    file: pathlib.Path,
) -> None:
    assert shown(drafted("Will it rain", "alarm", "translate"), chosen(file)) == [
        "Say hello in French",
        "Wake me at six",
    ]
    every = shown(drafted("Will it rain", "alarm", "translate"), chosen(file, offered=False, k=1))
    assert every == ["Will it rain in Oslo"]
    assert shown(drafted("Will it rain", "convert"), chosen(file, k=1)) == ["Will it rain in Oslo"]


def test_nothing_stands_before_a_prompt_without_tools_or_without_a_file(file: pathlib.Path) -> None:
    assert shown(drafted("Will it rain"), chosen(file)) == []
    assert shown(drafted("Will it rain", "weather"), Choice(name="demonstrations")) == []


def test_a_line_that_shows_no_call_is_told(tmp_path: pathlib.Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"input": "a", "output": "b"}', "utf-8")
    with pytest.raises(InvalidRequest, match="line 1 has no text 'input' and list 'calls'") as refused:
        shown(drafted("x", "weather"), chosen(bad))
    assert '"calls": [{"name"' in (refused.value.hint or "")


def test_a_run_shows_them_with_each_prompt_that_may_call(tmp_path: pathlib.Path, file: pathlib.Path) -> None:
    agent = spec(tools=("weather", "alarm"), context=chosen(file, k=1))

    async def scenario() -> None:
        async with harness(tmp_path, [[call("weather")], ["It rains."]], TOOLS) as h:
            state = await h.work(agent, "How warm is it in Rome")
            assert state.answer == "It rains."
            for request in h.backend.requests:
                first, second = (request.messages or ())[:2]
                assert first.content == "How warm is it in Kyiv"
                assert second.tool_calls[0].parsed() == {"city": "Kyiv"}

    run(scenario())
