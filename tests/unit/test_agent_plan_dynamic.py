"""The planner `dynamic`: what contradicts the plan changes it, and a short budget cuts it."""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Collection, Sequence

import pytest

from agent_support import harness, run, spec
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.errors import ToolFailed
from pentad.testing.backends import Item
from pentad.types import Request, ToolCall

THINGS = ("lamp", "chair", "table")
WEIGHS = {"lamp": 2, "chair": 7, "table": 30}


def item(thing: str, tool: str = "scale", shows: str = "kg", weight: int = 3) -> dict[str, object]:
    return {"task": f"weigh the {thing}", "tool": tool, "shows": shows, "weight": weight}


class Shop:
    """A scale and a catalogue, which both know weights; each fails for some things, for good."""

    def __init__(self, broken: Collection[tuple[str, str]] = (), odd: Collection[str] = ()) -> None:
        self.broken = set(broken)
        self.odd = set(odd)
        self.asked: list[tuple[str, str]] = []

    def _weigh(self, by: str, what: str) -> str:
        self.asked.append((by, what))
        if (by, what) in self.broken:
            raise ToolFailed(f"the {by} is out of order")
        return (
            f"the {what} is too wide" if what in self.odd and by == "scale" else f"{what}: {WEIGHS[what]} kg"
        )

    def tools(self) -> list[Tool]:
        @tool(effects="none")
        def scale(what: str) -> str:
            """Weighs a thing."""
            return self._weigh("scale", what)

        @tool(effects="none")
        def catalogue(what: str) -> str:
            """Looks a weight up."""
            return self._weigh("catalogue", what)

        return [scale, catalogue]


def turn(request: Request) -> Sequence[Item]:
    """The plan; a change of it that takes the catalogue; calls; an answer of all weights known."""
    asked = (request.messages or ())[-1].content
    if request.format.kind == "json_schema":
        if "went against the plan" not in asked:
            return [json.dumps({"plan": [item(thing) for thing in THINGS]})]
        failed = asked.partition("went against the plan: weigh the ")[2].split()[0]
        still = [t for t in THINGS if f"- weigh the {t} (with scale)" in asked]
        return [json.dumps({"plan": [item(failed, "catalogue"), *(item(t) for t in still)]})]
    if request.tools:
        what = next(t for t in THINGS if f"weigh the {t}" in asked)
        return [ToolCall(id=request.id, name=request.tools[0].name, arguments=json.dumps({"what": what}))]
    return [" and ".join(f"{t} {w}" for t, w in WEIGHS.items() if f"{t}: {w} kg" in asked) or "nothing"]


def agent(planner: str = "dynamic", steps: int = 16, **options: object) -> object:
    return spec(
        tools=("scale", "catalogue"),
        planner=Choice(name=planner, options={"max_repairs": 0, **options}),
        max_steps=steps,
    )


ALL = "lamp 2 and chair 7 and table 30"


def worked(path: pathlib.Path, shop: Shop, made: object, name: str = "j") -> tuple[RunState, list[Request]]:
    async def scenario() -> tuple[RunState, list[Request]]:
        async with harness(path, [turn], shop.tools(), repeat=True, journal=f"{name}.db") as h:
            state = await h.work(made, "What do lamp, chair and table weigh?")  # type: ignore[arg-type]
            explained = h.runtime.explain(state.run_id).decisions
            assert {d.policy for d in explained if d.subject in ("plan", "replan", "cancel")} <= {
                "dynamic",
                "react",
            }
            return state, h.backend.requests

    return run(scenario())


@pytest.mark.row("plan-dynamic", "mechanism")
def test_a_tool_that_fails_is_replaced_and_what_was_done_is_not_done_again(tmp_path: pathlib.Path) -> None:
    shop = Shop(broken=[("scale", "chair")])
    state, _ = worked(tmp_path, shop, agent())
    assert (state.status, state.answer) == ("answered", ALL)
    assert shop.asked == [("scale", "lamp"), ("scale", "chair"), ("catalogue", "chair"), ("scale", "table")]
    assert [e.outcome for e in state.exchanges].count("replanned") == 1


@pytest.mark.row("plan-dynamic", "mechanism")
def test_a_result_that_is_not_what_the_plan_expects_changes_it(tmp_path: pathlib.Path) -> None:
    shop = Shop(odd=["lamp"])
    state, requests = worked(tmp_path, shop, agent())
    assert state.answer == ALL
    assert shop.asked[:2] == [("scale", "lamp"), ("catalogue", "lamp")]
    asked = [(r.messages or ())[-1].content for r in requests]
    change = next(text for text in asked if "went against the plan" in text)
    assert "the result does not show 'kg': lamp" not in change
    assert "the result does not show 'kg': the lamp is too wide" in change


@pytest.mark.row("plan-dynamic", "mechanism")
def test_with_a_fifth_of_the_tools_broken_changed_plans_reach_what_static_ones_do_not(
    tmp_path: pathlib.Path,
) -> None:
    source = random.Random(7)
    reached = {"dynamic": 0, "static": 0}
    spent = changed = 0
    for number in range(20):
        broken = [("scale", thing) for thing in THINGS if source.random() < 0.2]
        state, requests = worked(tmp_path, Shop(broken), agent(), f"d{number}")
        reached["dynamic"] += state.answer == ALL
        spent += sum(len((r.messages or ())[-1].content.split()) for r in requests)
        changes = [r for r in requests if "went against the plan" in (r.messages or ())[-1].content]
        changed += sum(len((r.messages or ())[-1].content.split()) for r in changes)
        state, _ = worked(tmp_path, Shop(broken), agent(replans=0), f"s{number}")
        reached["static"] += state.answer == ALL
    assert reached["dynamic"] == 20
    assert reached["dynamic"] - reached["static"] >= 5
    assert 0 < changed < spent


def test_tasks_that_steps_do_not_suffice_for_are_cancelled_by_weight(tmp_path: pathlib.Path) -> None:
    def weighed(request: Request) -> Sequence[Item]:
        if request.format.kind == "json_schema":
            weights = {"lamp": 1, "chair": 3, "table": 2}
            return [json.dumps({"plan": [item(t, weight=weights[t]) for t in THINGS]})]
        return turn(request)

    shop = Shop()

    async def scenario() -> None:
        async with harness(tmp_path, [weighed], shop.tools(), repeat=True) as h:
            # Plan, the cut, two tasks, the answer.
            state = await h.work(agent(steps=4), "What do lamp, chair and table weigh?")  # type: ignore[arg-type]
            assert state.status == "answered"
            assert shop.asked == [("scale", "chair")]
            (cut,) = [d for d in h.runtime.explain(state.run_id).decisions if d.subject == "cancel"]
            assert cut.chosen == "weigh the lamp; weigh the table"
            assert dict(cut.candidates) == {"weigh the lamp": 1, "weigh the chair": 3, "weigh the table": 2}

    run(scenario())


def test_a_change_that_plans_the_failed_task_again_is_refused_and_the_plan_stays(
    tmp_path: pathlib.Path,
) -> None:
    def stubborn(request: Request) -> Sequence[Item]:
        if request.format.kind == "json_schema":
            return [json.dumps({"plan": [item(thing) for thing in THINGS]})]
        return turn(request)

    shop = Shop(broken=[("scale", "lamp")])

    async def scenario() -> None:
        async with harness(tmp_path, [stubborn], shop.tools(), repeat=True) as h:
            state = await h.work(agent(), "What do lamp, chair and table weigh?")  # type: ignore[arg-type]
            assert (state.status, state.answer) == ("answered", "chair 7 and table 30")
            refused = next(e for e in state.exchanges if e.label == "revise")
            assert refused.detail == "it plans again what failed: weigh the lamp"

    run(scenario())
