"""The planner `deps`: the nearest sub-goal first; after a failure describe, explain, plan again."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import pytest

from agent_support import harness, run, spec
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.errors import ToolFailed
from pentad.testing.backends import Item
from pentad.types import Request, ToolCall

NEEDS = {"wood": (), "stone": ("pickaxe",), "pickaxe": ("wood",), "flower": ()}
WHY = "stone needs a pickaxe, and there is none"


class World:
    """A crafting world: some things need others first."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.tried: list[str] = []

    def tools(self) -> list[Tool]:
        @tool(effects="none")
        def get(what: str) -> str:
            """Gets a thing of the world."""
            self.tried.append(what)
            lacking = [need for need in NEEDS[what] if need not in self.got]
            if lacking:
                raise ToolFailed(f"you have no {lacking[0]}")
            self.got.append(what)
            return f"you have {what}"

        return [get]


def task(what: str, *after: int) -> dict[str, object]:
    return {"task": f"get {what}", "tool": "get", "after": list(after)}


def turn(request: Request) -> Sequence[Item]:
    system, asked = (request.messages or ())[0].content, (request.messages or ())[-1].content
    if system.startswith("Describe"):
        return ["There is wood."]
    if system.startswith("Explain"):
        return [WHY]
    if system.startswith("For each task"):
        names = [line.split()[2] for line in asked.split("\n") if line[:1].isdigit()]
        steps = {"flower": 9, "wood": 1, "stone": 3, "pickaxe": 2}
        return [json.dumps({"steps": [steps[name] for name in names]})]
    if request.format.kind == "json_schema":
        plan = [task("pickaxe"), task("stone", 1), task("flower")] if WHY in asked else FIRST
        return [json.dumps({"plan": plan})]
    if request.tools:
        what = next(name for name in NEEDS if asked.split("\n")[0].endswith(name) or f"get {name}" in asked)
        return [ToolCall(id=request.id, name="get", arguments=json.dumps({"what": what}))]
    return ["I have stone."]


FIRST = [task("flower"), task("stone"), task("wood")]
GOAL = "Get stone and a flower."


def agent(**options: object) -> object:
    planner = Choice(name="deps", options={"max_repairs": 0, **options})
    return spec(tools=("get",), planner=planner, max_steps=20)


def worked(path: pathlib.Path, world: World, made: object) -> tuple[RunState, list[tuple[str, str]]]:
    async def scenario() -> tuple[RunState, list[tuple[str, str]]]:
        async with harness(path, [turn], world.tools(), repeat=True) as h:
            state = await h.work(made, GOAL)  # type: ignore[arg-type]
            return state, [(d.subject, d.chosen) for d in h.runtime.explain(state.run_id).decisions]

    return run(scenario())


@pytest.mark.row("plan-deps", "mechanism")
def test_the_nearest_goal_comes_first_and_a_failure_is_described_explained_and_planned_around(
    tmp_path: pathlib.Path,
) -> None:
    world = World()
    state, decisions = worked(tmp_path, world, agent())
    assert (state.status, state.answer) == ("answered", "I have stone.")
    assert world.tried == ["wood", "stone", "pickaxe", "stone", "flower"]
    assert [e.label for e in state.exchanges if e.label] == ["rank", "describe", "explain", "revise", "rank"]
    assert [chosen for subject, chosen in decisions if subject == "select"] == ["get wood", "get pickaxe"]
    assert ("explain", WHY) in decisions


def test_without_replans_the_plan_stays_as_it_was(tmp_path: pathlib.Path) -> None:
    world = World()
    state, _ = worked(tmp_path, world, agent(replans=0))
    assert state.status == "answered"
    assert world.tried == ["wood", "stone", "flower"]
    assert "stone" not in world.got
