"""The planner `graph`: tasks that wait for none run at once, and come to the same as one after another."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Sequence

import pytest

from agent_support import harness, run, spec
from pentad.agent.exchange import Exchange
from pentad.agent.loading import agent_from
from pentad.agent.planning.base import MadePlan, Unusable, View
from pentad.agent.planning.graph import PlanGraph
from pentad.agent.state import RunState
from pentad.agent.tools.base import Example, Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.testing.backends import Item
from pentad.types import Request, ToolCall

TASKS = [
    {"task": "weigh the lamp", "tool": "weigh", "after": []},
    {"task": "weigh the chair", "tool": "weigh", "after": []},
    {"task": "add both", "tool": "add", "after": [1, 2]},
]
SAYS = {
    "weigh the lamp": {"what": "lamp"},
    "weigh the chair": {"what": "chair"},
    "add both": {"a": 2, "b": 7},
}


class Scale:
    """Tools that note how many of them are at work at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def tools(self) -> list[Tool]:
        @tool(
            effects="none", examples=(Example(task="weigh a pen", arguments={"what": "pen"}, result="1 kg"),)
        )
        async def weigh(what: str) -> str:
            """Weighs a thing."""
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.05)
            self.now -= 1
            return f"the {what} has {len(what) + 2 if what == 'chair' else 2} kg"

        @tool(effects="none")
        def add(a: int, b: int) -> str:
            """Adds two weights."""
            return f"together {a + b} kg"

        return [weigh, add]


def turn(request: Request) -> Sequence[Item]:
    """The plan, then the call that the task wants, then the answer."""
    asked = (request.messages or ())[-1].content
    if request.format.kind == "json_schema":
        return [json.dumps({"plan": TASKS})]
    if not request.tools:
        return ["together 9 kg"]
    task = next(task for task in SAYS if task in asked)
    return [ToolCall(id=task, name=request.tools[0].name, arguments=json.dumps(SAYS[task]))]


def told(tmp_path: pathlib.Path, planner: str) -> tuple[dict[str, str], int, list[str]]:
    """What the tools of a run said, how many were at work at once, and what the model was asked."""
    scale = Scale()

    async def scenario() -> tuple[dict[str, str], int, list[str]]:
        agent = spec(
            tools=("weigh", "add"), planner=Choice(name=planner, options={"mode": "guided"}), max_steps=9
        )
        async with harness(tmp_path, [turn], scale.tools(), repeat=True, journal=f"{planner}.db") as h:
            state = await h.work(agent, "What do lamp and chair weigh together?")
            assert (state.status, state.answer) == ("answered", "together 9 kg")
            said = {e.calls[i].arguments: r.content for e in state.exchanges for i, r in e.results.items()}
            return said, scale.most, [(r.messages or ())[-1].content for r in h.backend.requests]

    return run(scenario())


def test_independent_tasks_run_at_once_with_the_results_of_a_serial_run(tmp_path: pathlib.Path) -> None:
    said, most, asked = told(tmp_path, "graph")
    serial, one, _ = told(tmp_path, "react")
    assert said == serial
    assert (most, one) == (2, 1)
    last = next(text for text in asked if "add both" in text)
    assert "the lamp has 2 kg" in last, "a task is shown what those that it waits for found out"
    assert not any("Known so far" in text for text in asked if "weigh the lamp" in text and "add" not in text)


def read(plan: list[dict[str, object]]) -> object:
    planner = PlanGraph()
    state = RunState(run_id="run_1", spec=spec(), goal="lamp and chair", tenant="t")
    answer = Exchange(step=1, purpose="plan", text=json.dumps({"plan": plan}))
    return planner.read(View(state=state, tools=tuple(Scale().tools())), answer)


def test_a_plan_says_what_each_task_waits_for() -> None:
    made = read(TASKS)  # type: ignore[arg-type]
    assert isinstance(made, MadePlan)
    assert made.needs == ((), (), (0, 1))


@pytest.mark.parametrize("after", [[3], [4], [0], ["x"]])
def test_a_plan_that_waits_for_what_is_not_before_is_told_so(after: list[object]) -> None:
    made = read([*TASKS[:2], {**TASKS[2], "after": after}])
    assert isinstance(made, Unusable)


def test_it_is_chosen_in_an_agent_file_and_is_guided_only() -> None:
    agent = agent_from({"name": "a", "planner": "graph"})
    assert build("planner", agent.planner) == PlanGraph()
    with pytest.raises(InvalidRequest, match="planner react has mode 'free'"):
        build("planner", Choice(name="graph", options={"mode": "free"}))
