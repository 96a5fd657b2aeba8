"""What agents announce: their node, the tool that comes next and how long it takes, the steps behind."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import httpx2
import pytest

from agent_support import call, harness, run, spec
from gateway_app import BASE
from pentad.agent.expectations import ToolTimes, outlook
from pentad.agent.planning.base import ModelCallDraft
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.functions import tool
from pentad.application.gateway import GatewaySettings, create_app
from pentad.application.services import Services
from pentad.choice import Choice
from pentad.types import Hints, RunContext, ToolChoice, ToolSpec
from team_support import agent, by_agent, delegated, team

PLANNED = Choice(name="react", options={"max_plan": 3})


class Clock:
    """Stands still unless a tool lets it go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def taking(clock: Clock, name: str, seconds: float) -> Tool:
    """A tool that takes so long."""

    def work() -> str:
        """Works for a while."""
        clock.now_s += seconds
        return f"{name} is done at {clock.now_s}"

    work.__name__ = name
    return tool(effects="none")(work)


def plan(*names: str) -> str:
    return json.dumps({"plan": [{"task": f"use {name} {i}", "tool": name} for i, name in enumerate(names)]})


def test_a_plan_is_the_graph_and_says_what_is_next_and_how_much_is_left(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    tools = [taking(clock, "look", 3.0), taking(clock, "write", 0.5)]
    turns = [
        [plan("look", "write", "look")],
        [call("look")],
        [call("write")],
        [call("look")],
        ["1003.0, 1003.5 and 1006.5"],
    ]

    async def scenario() -> list[RunContext]:
        async with harness(tmp_path, turns, tools, clock=clock) as h:
            state = await h.work(spec(tools=("look", "write"), planner=PLANNED, max_steps=9))
            assert state.status == "answered", state.error
            return [request.context for request in h.backend.requests]

    planning, first, second, third, last = run(scenario())
    assert (planning.graph, planning.node, planning.hints) == ({}, None, Hints(next="model"))
    assert first.graph == {
        "2-write": ("1-look",),
        "3-look": ("2-write",),
        "answer": ("1-look", "2-write", "3-look"),
    }
    assert [c.node for c in (first, second, third, last)] == ["1-look", "2-write", "3-look", "answer"]
    assert first.hints == Hints(next="tool", tool="look", remaining_steps=3)
    assert second.hints == Hints(next="tool", tool="write", remaining_steps=2)
    assert third.hints == Hints(next="tool", tool="look", tool_s=3.0, remaining_steps=1)
    assert last.hints == Hints(next="end", remaining_steps=0)


def test_each_call_names_the_one_before_as_its_parent(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        clock = Clock()
        turns = [[call("look")], [call("look")], ["done"]]
        async with harness(tmp_path, turns, [taking(clock, "look", 1.0)], clock=clock) as h:
            await h.work(spec(tools=("look",)))
            requests = h.backend.requests
            assert [r.context.parent for r in requests] == [None, requests[0].id, requests[1].id]

    run(scenario())


def test_how_long_a_tool_takes_is_learnt_from_the_journals_earlier_runs(tmp_path: pathlib.Path) -> None:
    turns = [[call("look")], ["done"]]

    async def work(seconds: float, tenant: str) -> Hints:
        clock = Clock()
        async with harness(tmp_path, turns, [taking(clock, "look", seconds)], clock=clock) as h:
            await h.work(spec(tools=("look",)), tenant=tenant)
            return h.backend.requests[0].context.hints

    assert run(work(7.0, "a")).tool_s is None
    assert run(work(9.0, "a")).tool_s == 7.0
    assert run(work(1.0, "a")).tool_s == 8.0
    assert run(work(1.0, "b")).tool_s is None, "another tenant's tools are not known"


def test_a_question_on_the_side_announces_nothing(tmp_path: pathlib.Path) -> None:
    @tool(effects="none")
    async def ask(context: ToolContext) -> str:
        """Asks the model."""
        assert context.ask is not None
        return await context.ask("You are asked.", "what?", 8)

    async def scenario() -> None:
        turns = [[call("ask")], ["aside"], ["done"]]
        async with harness(tmp_path, turns, [ask]) as h:
            state = await h.work(spec(tools=("ask",)))
            main, side, last = (request.context for request in h.backend.requests)
            assert side.hints == Hints()
            assert side.parent == f"{state.run_id}.1"
            assert last.parent == h.backend.requests[0].id
            assert main.hints.next == "tool"

    run(scenario())


def test_a_tool_time_is_the_median_of_the_latest_calls() -> None:
    times = ToolTimes()
    for seconds in (100.0, *[1.0] * 7, *[2.0] * 2, *[3.0] * 7):
        times.add("t", "look", seconds)
    assert times.expected_s("t", "look") == 2.0
    assert times.expected_s("t", "other") is None
    assert times.expected_s("u", "look") is None


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        ({"next_hint": "end", "tools": ("a",)}, None),
        ({"next_hint": "tool", "tools": ("a",)}, "a"),
        ({"next_hint": "tool", "tools": ("a", "b")}, None),
        ({"next_hint": "tool", "tools": ("a", "b"), "named": "b"}, "b"),
    ],
)
def test_the_tool_that_is_expected(draft: dict[str, Any], expected: str | None) -> None:
    named = draft.pop("named", None)
    state = RunState(run_id="r", spec=spec(), goal="g", tenant="t")
    made = ModelCallDraft(
        purpose="act",
        system="",
        turns=(),
        max_tokens=5,
        tools=tuple(ToolSpec(name=name) for name in draft.pop("tools")),
        tool_choice=ToolChoice(mode="named", name=named) if named else ToolChoice(),
        **draft,
    )
    assert outlook(state, made, ToolTimes(), None).hints.tool == expected


def test_a_run_over_http_is_a_step_of_something_larger(tmp_path: pathlib.Path) -> None:
    """Its priority and what waits for it reach its model calls, as do objectives in headers."""

    async def scenario() -> None:
        async with harness(tmp_path, [["done"]], repeat=True) as h:
            services = Services(models=h.models, agents=h.runtime)
            app = create_app(services, GatewaySettings())
            transport = httpx2.ASGITransport(app=app)
            async with httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
                body = {
                    "goal": "say it",
                    "agent": {"name": "tester", "planner": {"name": "react", "options": {"max_plan": 0}}},
                    "metadata": {"pentad_graph": '{"b": ["a"], "c": ["b"]}', "pentad_node": "a"},
                    "pentad": {"priority": 3, "run_id": "outer"},
                }
                headers = {"x-pentad-slo": '{"ttft_s": 0.5}'}
                started = await client.post("/v1/runs", json=body, headers=headers)
                assert started.status_code == 201, started.text
                assert "which chooses them" in started.headers["x-pentad-notice"]
                state = await h.runtime.wait(started.json()["id"])
                assert state.status == "answered", state.error
                misspelt = await client.post("/v1/runs", json={**body, "pentad": {"prio": 1}})
                assert misspelt.status_code == 400
            (request,) = h.backend.requests
            assert (request.priority, request.context.run_id) == (3, state.run_id)
            assert request.context.hints.remaining_steps == 2
            assert request.context.objective.ttft_s == 0.5

    run(scenario())


def test_members_of_a_team_have_the_leads_priority_and_its_steps_behind_them(tmp_path: pathlib.Path) -> None:
    script = {"lead": [[delegated("ann", "look")], ["seen"]], "ann": [["a lamp"]]}

    async def scenario() -> None:
        async with harness(tmp_path, [by_agent(script)], repeat=True) as h:
            await h.work(team({"ann": agent("ann")}), priority=2, steps_behind=4)
            member = [r for r in h.backend.requests if r.context.run_id and "-" in r.context.run_id]
            assert [r.context.hints.remaining_steps for r in member] == [5]
            assert {r.priority for r in h.backend.requests} == {2}

    run(scenario())
