"""The planner `hierarchical`: parents before children, a level at once, leaves with post-conditions."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence

import pytest

from agent_support import harness, run, spec
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.testing.backends import Item
from pentad.types import Request, ToolCall


def node(task: str, tool: str = "", shows: str = "") -> dict[str, str]:
    return {"task": task, "tool": tool, "shows": shows}


TREE: Mapping[str, list[dict[str, str]]] = {
    "make tea": [node("boil water"), node("brew"), node("serve it", "do", "served")],
    "boil water": [node("fill the kettle", "do", "filled"), node("heat the kettle", "do", "heated")],
    "brew": [node("put tea in", "do"), node("pour water on", "do", "poured")],
}
GOAL = "make tea"


class Kitchen:
    """A tool that does tasks; some of them come out wrong a few times."""

    def __init__(self, wrong: Mapping[str, int] | None = None, effects: str = "none") -> None:
        self.wrong = dict(wrong or {})
        self.effects = effects
        self.done: list[str] = []

    def tools(self) -> list[Tool]:
        @tool(effects=self.effects)  # type: ignore[arg-type]
        def do(task: str) -> str:
            """Does a task of the kitchen."""
            self.done.append(task)
            if self.wrong.get(task, 0):
                self.wrong[task] -= 1
                return "nothing happened"
            verb, *rest = task.split()
            past = {"fill": "filled", "heat": "heated", "put": "put", "pour": "poured", "serve": "served"}[
                verb
            ]
            return f"{past} {' '.join(rest)}"

        return [do]


def turn(request: Request) -> Sequence[Item]:
    asked = (request.messages or ())[-1].content
    if request.format.kind == "json_schema":
        part = asked.partition("The part to split now: ")[2] or asked.removeprefix("Goal: ")
        return [json.dumps({"sub_goals": TREE[part.split("\n")[0]]})]
    if request.tools:
        task = asked.split("\n")[0]
        return [ToolCall(id=task, name="do", arguments=json.dumps({"task": task}))]
    return ["tea is served"]


LEAVES = ["fill the kettle", "heat the kettle", "put tea in", "pour water on", "serve it"]
AGENT = spec(tools=("do",), planner=Choice(name="hierarchical"), max_steps=16)


@pytest.mark.row("plan-hierarchical", "mechanism", claims=(2,))
def test_the_tree_is_laid_out_from_the_top_before_anything_is_done(tmp_path: pathlib.Path) -> None:
    kitchen = Kitchen()

    async def scenario() -> None:
        async with harness(tmp_path, [turn], kitchen.tools(), repeat=True) as h:
            state = await h.work(AGENT, GOAL)
            assert (state.status, state.answer) == ("answered", "tea is served")
            assert [(e.step, e.label) for e in state.exchanges if e.purpose in ("think", "plan")] == [
                (1, "expand 0"),
                (2, "expand 0.1"),
                (2, "expand 0.2"),
                (3, "leaves"),
            ]
            assert state.plan == tuple(("do", leaf) for leaf in LEAVES)
            assert kitchen.done == LEAVES
            subjects = [d.subject for d in h.runtime.explain(state.run_id).decisions]
            assert {"expand 0", "expand 0.1", "expand 0.2", "plan"} <= set(subjects)

    run(scenario())


@pytest.mark.row("plan-hierarchical", "mechanism", claims=(2,))
def test_a_leaf_whose_result_does_not_show_what_it_must_is_tried_again(tmp_path: pathlib.Path) -> None:
    kitchen = Kitchen(wrong={"heat the kettle": 1})

    async def scenario() -> None:
        async with harness(tmp_path, [turn], kitchen.tools(), repeat=True) as h:
            state = await h.work(AGENT, GOAL)
            assert state.status == "answered"
            assert kitchen.done == [LEAVES[0], LEAVES[1], *LEAVES[1:]]
            again = (h.backend.requests[5].messages or ())[-1].content
            assert "the result does not show 'heated': nothing happened" in again

    run(scenario())


def test_an_effect_is_not_repeated_for_a_post_condition_and_the_answer_says_so(
    tmp_path: pathlib.Path,
) -> None:
    kitchen = Kitchen(wrong={"heat the kettle": 1}, effects="unkeyed")

    async def scenario() -> None:
        async with harness(tmp_path, [turn], kitchen.tools(), repeat=True) as h:
            await h.work(AGENT, "Please make tea")
            assert kitchen.done == []

        async with harness(tmp_path, [turn], kitchen.tools(), repeat=True, journal="b.db") as h:
            await h.work(AGENT, GOAL)
            assert kitchen.done == LEAVES
            asked = (h.backend.requests[-1].messages or ())[-1].content
            assert "heat the kettle: failed (do: the result does not show 'heated'" in asked

    run(scenario())


def test_a_tree_deeper_than_allowed_is_refused_and_the_run_ends(tmp_path: pathlib.Path) -> None:
    def deep(request: Request) -> Sequence[Item]:
        return [json.dumps({"sub_goals": [node("boil water")]})]

    async def scenario() -> None:
        agent = spec(tools=("do",), planner=Choice(name="hierarchical", options={"depth": 1}), max_steps=16)
        async with harness(tmp_path, [deep], Kitchen().tools(), repeat=True) as h:
            state = await h.work(agent, GOAL)
            assert state.status == "failed"
            assert "without a tool: ['boil water']" in str(state.error)
            assert len(h.backend.requests) == 3

    run(scenario())
