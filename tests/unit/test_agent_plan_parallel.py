"""The planner `parallel`: each call begins when what it needs is there; the order of ends changes nothing."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Mapping, Sequence

import pytest

from agent_support import Harness, harness, run, spec
from pentad.agent.chained_calls import filled
from pentad.agent.exchange import Exchange
from pentad.agent.planning.base import MadePlan, Unusable, View, WantsTools
from pentad.agent.planning.call_plan import call_plan
from pentad.agent.planning.parallel import Parallel
from pentad.agent.state import RunState
from pentad.agent.tool_events import ToolIntended, ToolReturned
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest, ToolFailed
from pentad.testing.backends import Item
from pentad.types import Budget, Request, ToolCall
from team_support import team

PLAN = [
    {"tool": "weigh", "arguments": {"what": "lamp"}, "after": []},
    {"tool": "weigh", "arguments": {"what": "chair"}, "after": []},
    {"tool": "weigh", "arguments": {"what": "table"}, "after": []},
    {"tool": "add", "arguments": {"a": "$1", "b": "$2"}, "after": []},
    {"tool": "weigh", "arguments": {"what": "shelf"}, "after": [3]},
    {"tool": "add", "arguments": {"a": "$4", "b": "$5"}, "after": []},
]
WEIGHS = {"lamp": 2, "chair": 7, "table": 30, "shelf": 12}
TOTAL = "together 21 kg"


class Scale:
    """Tools that take as long as they are told, and note in which order they ended."""

    def __init__(self, takes_s: Mapping[str, float], broken: Sequence[str] = ()) -> None:
        self.takes_s = takes_s
        self.broken = list(broken)
        self.ended: list[str] = []

    def tools(self) -> list[Tool]:
        @tool(effects="none")
        async def weigh(what: str) -> str:
            """Weighs a thing."""
            await asyncio.sleep(self.takes_s.get(what, 0))
            if what in self.broken:
                raise ToolFailed(f"the scale cannot weigh the {what}")
            self.ended.append(what)
            return f"it has {WEIGHS[what]} kg"

        @tool(effects="none")
        async def add(a: int, b: int) -> str:
            """Adds two weights."""
            await asyncio.sleep(self.takes_s.get("add", 0))
            return f"together {a + b} kg"

        return [weigh, add]


def says(*plans: object) -> list[object]:
    """The plans in turn, then the answer."""
    left = list(plans)

    def turn(request: Request) -> Sequence[Item]:
        if request.format.kind == "json_schema":
            return [json.dumps({"plan": left.pop(0)})]
        return [TOTAL]

    return [turn]


AGENT = spec(tools=("weigh", "add"), planner=Choice(name="parallel"))


def results(h: Harness, run_id: str) -> dict[int, str]:
    events = [record.event for record in h.records(run_id)]
    return {e.index: e.content for e in events if isinstance(e, ToolReturned)}


def worked(tmp_path: pathlib.Path, scale: Scale, name: str) -> tuple[dict[int, str], float]:
    """What each call returned, and the seconds from the first intent to the last result."""

    async def scenario() -> tuple[dict[int, str], float]:
        async with harness(tmp_path, says(PLAN), scale.tools(), repeat=True, journal=f"{name}.db") as h:
            state = await h.work(AGENT, "What do they weigh?")
            assert (state.status, state.answer) == ("answered", TOTAL)
            assert len(h.backend.requests) == 2, "the plan and the answer, nothing in between"
            records = h.records(state.run_id)
            began = next(r.clock_s for r in records if isinstance(r.event, ToolIntended))
            ended = [r.clock_s for r in records if isinstance(r.event, ToolReturned)][-1]
            return results(h, state.run_id), ended - began

    return run(scenario())


@pytest.mark.row("plan-parallel", "mechanism")
def test_the_makespan_is_that_of_the_longest_way_through_the_plan(tmp_path: pathlib.Path) -> None:
    takes = {"lamp": 0.3, "chair": 0.1, "table": 0.1, "shelf": 0.4, "add": 0.2}
    # 3, then 5, then 6 is longest; done level by level it would be 0.3 + 0.4 + 0.2, one by one 1.3.
    critical_s = max(0.3 + 0.2 + 0.2, 0.1 + 0.4 + 0.2)
    said, took_s = worked(tmp_path, Scale(takes), "graph")
    assert said[5] == TOTAL
    assert critical_s <= took_s <= 1.15 * critical_s


@pytest.mark.row("plan-parallel", "mechanism")
def test_results_are_the_same_whatever_ends_first(tmp_path: pathlib.Path) -> None:
    orders, found = set(), []
    for number, slow in enumerate(("lamp", "chair", "table")):
        scale = Scale({slow: 0.08})
        said, _ = worked(tmp_path, scale, str(number))
        orders.add(tuple(scale.ended))
        found.append(said)
    assert len(orders) > 1, "the calls did end in different orders"
    assert found[0] == found[1] == found[2]
    assert found[0] == {
        0: "it has 2 kg",
        1: "it has 7 kg",
        2: "it has 30 kg",
        3: "together 9 kg",
        4: "it has 12 kg",
        5: TOTAL,
    }


def test_after_a_failure_what_needs_it_is_not_called_and_the_rest_is_planned_anew(
    tmp_path: pathlib.Path,
) -> None:
    scale = Scale({}, broken=["chair"])
    again = [{"tool": "add", "arguments": {"a": 9, "b": 12}, "after": []}]

    async def scenario() -> None:
        async with harness(tmp_path, says(PLAN, again), scale.tools(), repeat=True) as h:
            state = await h.work(AGENT, "What do they weigh?")
            assert (state.status, state.answer) == ("answered", TOTAL)
            first = next(e for e in state.exchanges if e.label == "calls")
            assert first.results[3].content == "not called: call 2, whose result it needs, failed"
            assert first.results[5].content == "not called: call 4, whose result it needs, failed"
            assert first.results[4].status == "ok", "what needs none of it is called"
            asked = (h.backend.requests[1].messages or ())[-1].content
            assert "the scale cannot weigh the chair" in asked
            assert "it has 12 kg" in asked
            assert [e.outcome for e in state.exchanges] == [
                "planned",
                "called_tools",
                "replanned",
                "called_tools",
                "answered",
            ]

    run(scenario())


def test_a_run_killed_between_calls_makes_only_those_that_are_missing(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, says(PLAN), Scale({}).tools(), repeat=True) as h:
            state = await h.work(AGENT, "What do they weigh?")
            records, said = h.records(state.run_id), results(h, state.run_id)
        cut = 1 + [n for n, r in enumerate(records) if isinstance(r.event, ToolReturned)][3]
        made = {r.event.index for r in records[:cut] if isinstance(r.event, ToolReturned)}
        scale = Scale({})
        async with harness(tmp_path, [[TOTAL]], scale.tools(), journal="again.db") as h:
            await h.journal.begin(records[:cut], state.run_id)
            await h.runtime.resume_all()
            again = await h.runtime.wait(state.run_id)
            assert (again.status, again.answer, again.plan) == ("answered", TOTAL, state.plan)
            assert results(h, state.run_id) == said
            done = {str(PLAN[i]["arguments"]["what"]) for i in made if PLAN[i]["tool"] == "weigh"}  # type: ignore[index]
            assert not set(scale.ended) & done

    run(scenario())


def task_of(member: str, task: str) -> dict[str, object]:
    return {"tool": "delegate", "arguments": {"member": member, "task": task}, "after": []}


@pytest.mark.row("plan-parallel", "mechanism")
def test_members_of_a_team_work_at_once_on_what_needs_nothing_of_each_other(tmp_path: pathlib.Path) -> None:
    both = asyncio.Event()
    plan = [task_of("ann", "find a lamp"), task_of("bob", "find a chair"), task_of("ann", "join $1 and $2")]

    def turn(request: Request) -> Sequence[Item]:
        asked = (request.messages or ())[-1].content
        if request.format.kind == "json_schema":
            return [json.dumps({"plan": plan})]
        if asked == "find a lamp":
            return [both, "a lamp"]
        if asked == "find a chair":
            both.set()
            return ["a chair"]
        return ["a room"] if asked.startswith("join") else [TOTAL]

    async def scenario() -> None:
        lead = team(planner=Choice(name="parallel"))
        async with harness(tmp_path, [turn], repeat=True) as h:
            state = await h.work(lead, "Furnish the room.")
            assert (state.status, state.answer) == ("answered", TOTAL)
            assert results(h, state.run_id) == {0: "a lamp", 1: "a chair", 2: "a room"}
            tasks = [child.goal for _, child in sorted(state.children.items())]
            assert tasks == ["find a lamp", "find a chair", "join a lamp and a chair"]

    run(scenario())


def test_a_plan_that_the_budget_cannot_pay_for_begins_no_call(tmp_path: pathlib.Path) -> None:
    scale = Scale({})

    async def scenario() -> None:
        async with harness(tmp_path, says(PLAN), scale.tools(), repeat=True) as h:
            state = await h.work(AGENT, "What do they weigh?", budget=Budget(tool_calls=5))
            assert state.status == "budget_exceeded"
            assert scale.ended == []

    run(scenario())


def reading(plan: object) -> object:
    state = RunState(run_id="run_1", spec=AGENT, goal="lamp", tenant="t")
    answer = Exchange(step=1, purpose="plan", text=json.dumps({"plan": plan}))
    return Parallel().read(View(state=state, tools=tuple(Scale({}).tools())), answer)


def test_a_reference_is_a_need_too() -> None:
    made = reading(PLAN)
    assert isinstance(made, MadePlan)
    assert made.needs == ((), (), (), (0, 1), (2,), (3, 4))
    assert made.decisions[0].chosen == "6 calls, the longest chain has 3"


@pytest.mark.parametrize("after", [[1], [2], [0]])
def test_a_call_that_waits_for_none_before_it_is_told_so(after: list[int]) -> None:
    made = reading([{**PLAN[0], "after": after}])
    assert isinstance(made, Unusable)
    assert "is to wait for one that is not before it" in made.problem


def test_a_reference_becomes_the_text_or_the_one_number_in_it() -> None:
    said = {0: result("it has 2,300 kg"), 1: result("1 of 2")}
    number = {"type": "integer"}
    schema = {"type": "object", "properties": {"a": number, "s": {"type": "string"}}}
    weigher = Tool(name="t", description="", parameters=schema, call=lambda *_: asyncio.sleep(0))

    def made(**arguments: object) -> object:
        call = ToolCall(id="c", name="t", arguments=json.dumps(arguments))
        return json.loads(filled(call, weigher, said).arguments)

    assert made(a="$1", s="so $1") == {"a": 2300, "s": "so it has 2,300 kg"}
    assert made(a="$2", s="$3") == {"a": "1 of 2", "s": "$3"}
    assert made(s="$10") == {"s": "$10"}


def result(content: str) -> ToolReturned:
    return ToolReturned(step=1, index=0, call_id="c", tool="t", status="ok", content=content)


def test_needs_that_do_not_fit_the_calls_are_refused() -> None:
    calls = call_plan(json.dumps({"plan": PLAN}), "c").calls
    with pytest.raises(ValueError, match="needs of 1"):
        WantsTools(calls=calls, needs=((),))


def test_it_is_guided_only() -> None:
    with pytest.raises(InvalidRequest, match="planner react has mode 'free'"):
        build("planner", Choice(name="parallel", options={"mode": "free"}))


@pytest.mark.row("tool-nestful", "mechanism")
def test_a_reference_may_name_a_field_of_a_result_and_keeps_its_type() -> None:
    said = {
        0: ToolReturned(
            step=1, index=0, call_id="c", tool="t", status="ok", content='{"id": 7, "name": "Bo", "at": [1]}'
        ),
        1: ToolReturned(step=1, index=1, call_id="d", tool="t", status="ok", content="no object."),
    }

    def made(**arguments: object) -> object:
        wanted = ToolCall(id="x", name="t", arguments=json.dumps(arguments))
        return json.loads(filled(wanted, None, said).arguments)

    assert made(a="$1.id", b="$1.at", c="to $1.name!", d="$1.none", e="$2.id", f="$3.id") == {
        "a": 7,
        "b": [1],
        "c": "to Bo!",
        "d": '{"id": 7, "name": "Bo", "at": [1]}.none',
        "e": "no object..id",
        "f": "$3.id",
    }
