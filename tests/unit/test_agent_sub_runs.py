"""Sub-runs: runs of their own, within the budget and the life of the run that leads."""

from __future__ import annotations

import asyncio
import pathlib
import time
from contextlib import aclosing

import pytest

from agent_support import Harness, call, harness, run
from pentad.agent.events import Event
from pentad.agent.journal import Journal
from pentad.agent.model_events import TextStreamed
from pentad.agent.state import RunState, fold
from pentad.agent.sub_run_events import SubRunEnded, SubRunStarted
from pentad.agent.tool_events import ApprovalAsked, ToolReturned
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.agent.unattended import cancel_unattended
from pentad.errors import Conflict
from pentad.types import Budget, Usage
from team_support import agent, by_agent, delegated, kinds, team

BOTH = [delegated("ann", "find the lamp", "c1"), delegated("bob", "find the chair", "c2")]
SCRIPT = {
    "lead": [BOTH, ["lamp and chair"]],
    "ann": [["the lamp"]],
    "bob": [["the chair"]],
}
ORDERS = {
    "lead": [[delegated("ann", "order lamps")], ["all ordered"]],
    "ann": [[call("order", lamps=3)], ["ordered three"]],
}


def shop() -> tuple[Tool, list[int]]:
    """A tool with an effect that cannot be repeated, and its effects."""
    made: list[int] = []

    @tool
    def order(lamps: int) -> str:
        """Orders lamps."""
        made.append(lamps)
        return f"ordered {lamps}"

    return order, made


def events(h: Harness, run_id: str) -> list[Event]:
    """The journaled events of a run."""
    return [record.event for record in h.records(run_id) if not isinstance(record.event, TextStreamed)]


async def until(h: Harness, run_id: str, kind: str) -> RunState:
    """The run once it has journaled an event of the kind."""
    async with asyncio.timeout(10), aclosing(h.runtime.events(run_id)) as records:
        async for record in records:
            if record.kind == kind:
                break
    return h.runtime.show(run_id)


@pytest.mark.row("ma-supervisor", "mechanism")
def test_members_work_in_runs_of_their_own_and_their_answers_reach_the_lead(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [by_agent(SCRIPT)], repeat=True) as h:
            state = await h.work(team(), "furnish")
            assert (state.status, state.answer) == ("answered", "lamp and chair")
            said = [e.content for e in events(h, state.run_id) if isinstance(e, ToolReturned)]
            assert said == ["the lamp", "the chair"]
            ann, bob = (child for _, child in sorted(state.children.items()))
            assert (ann.agent, ann.goal, ann.status) == ("ann", "find the lamp", "answered")
            assert (bob.agent, bob.goal, bob.status) == ("bob", "find the chair", "answered")
            for child in (ann, bob):
                inner = h.runtime.show(child.run_id)
                assert inner.parent is not None
                assert (inner.parent.run_id, inner.parent.step) == (state.run_id, child.step)
                assert inner.goal == child.goal
            lines = {row.id: row.parent for row in h.runtime.list()}
            assert lines[state.run_id] is None
            assert {p.run_id for p in lines.values() if p is not None} == {state.run_id}

    run(scenario())


def test_results_are_journaled_in_the_order_of_the_calls_whatever_ends_first(tmp_path: pathlib.Path) -> None:
    first = asyncio.Event()

    async def scenario() -> None:
        script = {**SCRIPT, "ann": [[first, "the lamp"]]}
        async with harness(tmp_path, [by_agent(script)], repeat=True) as h:
            run_id = await h.runtime.start(team(), "furnish")
            state = await until(h, run_id, "sub_run_ended")
            assert [c.status for _, c in sorted(state.children.items())] == ["running", "answered"]
            assert "tool_returned" not in kinds(h, run_id), "the first call has no result yet"
            first.set()
            await h.runtime.wait(run_id)
            all_of = events(h, run_id)
            assert [e.index for e in all_of if isinstance(e, SubRunEnded)] == [1, 0]
            assert [e.index for e in all_of if isinstance(e, ToolReturned)] == [0, 1]

    run(scenario())


def test_a_budget_is_carved_held_and_settled(tmp_path: pathlib.Path) -> None:
    def used(text: str) -> list[object]:
        return [text, Usage(prompt_tokens=30, completion_tokens=10)]

    script = {
        "lead": [[*BOTH, Usage(prompt_tokens=90, completion_tokens=10)], used("lamp and chair")],
        "ann": [used("the lamp")],
        "bob": [used("the chair")],
    }

    async def scenario() -> None:
        members = {
            "ann": agent("ann", max_tokens=20),
            "bob": agent("bob", max_tokens=20, budget=Budget(tokens=500)),
        }
        lead = team(members, budget=Budget(tokens=4100, tool_calls=10, cost=1.0), max_tokens=64)
        async with harness(tmp_path, [by_agent(script)], repeat=True) as h:
            state = await h.work(lead, "furnish")
            begun = [e for e in events(h, state.run_id) if isinstance(e, SubRunStarted)]
            # 4000 tokens are left after the lead's first turn, and 8 calls beside the two delegations.
            assert [(e.budget.tokens, e.budget.tool_calls) for e in begun] == [(1500, 3), (500, 3)]
            assert begun[0].decisions[0].chosen == "ann"
            assert begun[0].decisions[0].constraint == (
                "1500 of 4000 tokens, 0.375 of 1 money, 3 of 8 tool calls"
            )
            assert state.ledger.held == {}
            assert state.ledger.used.tokens == 100 + 40 + 40 + 40
            assert state.ledger.used.tool_calls == 2
            inner = [h.runtime.show(child.run_id).ledger.used for child in state.children.values()]
            assert sum(each.tokens for each in inner) == 80

    run(scenario())


def test_an_approval_inside_a_sub_run_makes_its_parent_wait(
    tmp_path: pathlib.Path,
) -> None:
    order, made = shop()

    async def scenario() -> None:
        async with harness(tmp_path, [by_agent(ORDERS)], [order], repeat=True) as h:
            lead = team({"ann": agent("ann", tools=("order",), ask=("order",))}, budget=Budget(wall_s=60))
            begun_s = time.monotonic()
            run_id = await h.runtime.start(lead, "furnish")
            state = await until(h, run_id, "sub_run_changed")
            assert state.status == "waiting"
            assert {row.id: row.status for row in h.runtime.list()} == {
                run_id: "waiting",
                f"{run_id}-1-0": "waiting",
            }
            ((asking, asked),) = h.runtime.pending(run_id)
            assert (asking, asked.tool, made) == (f"{run_id}-1-0", "order", [])
            await asyncio.sleep(0.3)
            await h.runtime.answer(run_id, asked.approval_id, approved=True)
            ended = await h.runtime.wait(run_id)
            assert (ended.status, ended.answer, made) == ("answered", "all ordered", [3])
            assert ended.active_s <= time.monotonic() - begun_s - 0.3, "waiting is not the run's time"
            told = h.runtime.explain(run_id)
            assert told.waiting_s >= 0.25

    run(scenario())


def test_cancelling_a_run_ends_its_sub_runs_first(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        script = {**SCRIPT, "ann": [[asyncio.Event(), "never"]]}
        async with harness(tmp_path, [by_agent(script)], repeat=True) as h:
            run_id = await h.runtime.start(team(budget=Budget(tokens=9000)), "furnish")
            await until(h, run_id, "sub_run_ended")
            await h.runtime.cancel(run_id)
            state = h.runtime.show(run_id)
            assert state.status == "cancelled"
            assert [c.status for _, c in sorted(state.children.items())] == ["cancelled", "answered"]
            assert h.runtime.show(f"{run_id}-1-0").status == "cancelled"
            assert state.ledger.held.keys() <= {"tool:1:0", "tool:1:1"}
            assert h.runtime.active == 0

    run(scenario())


def test_a_sub_run_cancelled_alone_is_told_to_the_lead(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        script = {**SCRIPT, "ann": [[asyncio.Event(), "never"]]}
        async with harness(tmp_path, [by_agent(script)], repeat=True) as h:
            run_id = await h.runtime.start(team(), "furnish")
            await until(h, run_id, "sub_run_ended")
            await h.runtime.cancel(f"{run_id}-1-0")
            state = await h.runtime.wait(run_id)
            assert state.status == "answered"
            first = state.exchanges[0].results[0]
            assert (first.status, first.content) == (
                "failed",
                "ann did not answer (cancelled): cancelled by request.",
            )

    run(scenario())


def test_the_wall_time_of_the_lead_ends_its_sub_runs(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        script = {**SCRIPT, "ann": [[asyncio.Event(), "never"]]}
        async with harness(tmp_path, [by_agent(script)], repeat=True) as h:
            state = await h.work(team(budget=Budget(wall_s=0.5)), "furnish")
            assert state.status == "budget_exceeded"
            assert all(child.ended for child in state.children.values())

    run(scenario())


def test_a_sub_run_goes_on_with_its_parent_in_another_process(tmp_path: pathlib.Path) -> None:
    order, made = shop()
    lead = team({"ann": agent("ann", tools=("order",), ask=("order",))})

    async def scenario() -> None:
        async with harness(tmp_path, [by_agent(ORDERS)], [order], repeat=True) as h:
            run_id = await h.runtime.start(lead, "furnish")
            await until(h, run_id, "sub_run_changed")
        async with harness(tmp_path, [by_agent(ORDERS)], [order], repeat=True) as h:
            child = f"{run_id}-1-0"
            with pytest.raises(Conflict, match=f"is a sub-run and goes on with '{run_id}' only"):
                await h.runtime.resume(child)
            assert await h.runtime.resume_all() == [run_id]
            await until(h, child, "run_resumed")
            ((_, asked),) = h.runtime.pending(run_id)
            await h.runtime.answer(child, asked.approval_id, approved=True)
            state = await h.runtime.wait(run_id)
            assert (state.status, made) == ("answered", [3])
            assert kinds(h, run_id).count("sub_run_started") == 1
            assert kinds(h, child).count("run_started") == 1
            asks = [r for r in h.records(child) if isinstance(r.event, ApprovalAsked)]
            assert len(asks) == 1

    run(scenario())


def test_an_answer_to_a_sub_run_takes_its_parent_up(tmp_path: pathlib.Path) -> None:
    order, made = shop()
    lead = team({"ann": agent("ann", tools=("order",), ask=("order",))})

    async def scenario() -> None:
        async with harness(tmp_path, [by_agent(ORDERS)], [order], repeat=True) as h:
            run_id = await h.runtime.start(lead, "furnish")
            await until(h, run_id, "sub_run_changed")
        async with harness(tmp_path, [by_agent(ORDERS)], [order], repeat=True) as h:
            ((child, asked),) = h.runtime.pending(run_id)
            await h.runtime.answer(child, asked.approval_id, approved=True)
            assert (await h.runtime.wait(run_id)).status == "answered"
            assert made == [3]

    run(scenario())


def test_a_run_that_nobody_works_on_is_cancelled_with_its_sub_runs(tmp_path: pathlib.Path) -> None:
    order, _ = shop()
    lead = team({"ann": agent("ann", tools=("order",), ask=("order",))})

    async def scenario() -> None:
        async with harness(tmp_path, [by_agent(ORDERS)], [order], repeat=True) as h:
            run_id = await h.runtime.start(lead, "furnish")
            await until(h, run_id, "sub_run_changed")
        journal = Journal(tmp_path / "journal.db")
        await cancel_unattended(journal, run_id)
        states = [fold(journal.read(i)) for i in (run_id, f"{run_id}-1-0")]
        assert [s.status for s in states] == ["cancelled", "cancelled"]
        assert states[0].children[1, 0].status == "cancelled"
        assert journal.check_integrity() == []
        journal.close()

    run(scenario())


def test_members_may_lead_teams_of_their_own(tmp_path: pathlib.Path) -> None:
    script = {
        "lead": [[delegated("chief", "furnish the hall")], ["done"]],
        "chief": [[delegated("ann", "a lamp")], ["hall furnished"]],
        "ann": [["lamp placed"]],
    }

    async def scenario() -> None:
        inner = agent("chief", agents={"ann": agent("ann")}, coordinator=team().coordinator)
        async with harness(tmp_path, [by_agent(script)], repeat=True) as h:
            state = await h.work(team({"chief": inner}, budget=Budget(tokens=8000)), "furnish")
            assert state.answer == "done"
            assert len(h.runtime.list()) == 3
            deep = h.runtime.show(f"{state.run_id}-1-0-1-0")
            assert (deep.spec.name, deep.answer) == ("ann", "lamp placed")
            assert deep.ledger.budget.tokens is not None
            assert deep.ledger.budget.tokens < 8000 * 0.75 * 0.75

    run(scenario())
