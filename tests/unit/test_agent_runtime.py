"""The runtime over a scripted model: every way that a run can go and end."""

from __future__ import annotations

import asyncio
import json
import pathlib
from dataclasses import replace

import pytest

from agent_support import call, harness, run, spec
from pentad.agent.events import RunResumed
from pentad.agent.limits import RuntimeLimits
from pentad.agent.memory.window import Window
from pentad.agent.model_events import Compacted, ModelAsked, ModelFailed, TextStreamed
from pentad.agent.spec import MemoryChoice
from pentad.agent.state import fold
from pentad.agent.tool_events import ToolIntended, ToolReturned, ToolsWithheld
from pentad.agent.tools.base import ToolContext
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.errors import (
    BackendFailed,
    Conflict,
    InvalidRequest,
    NotFound,
    Overloaded,
    UnknownName,
)
from pentad.types import Budget, Message, Objective, Usage


@tool(effects="none")
def add(a: int, b: int) -> int:
    """Adds two whole numbers."""
    return a + b


@tool(effects="none")
def echo(text: str) -> str:
    """Says it again."""
    return text


def test_a_run_thinks_acts_observes_and_answers(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        turns = [["I add. ", call("add", a=2, b=3)], ["It is 5."]]
        async with harness(tmp_path, turns, [add]) as h:
            state = await h.work(spec(tools=("add",)))
            assert (state.status, state.answer, state.error) == ("answered", "It is 5.", None)
            assert [e.outcome for e in state.exchanges] == ["called_tools", "answered"]
            assert state.exchanges[0].text == "I add. "
            seen = h.backend.requests[1].messages
            assert seen is not None
            assert [m.role for m in seen] == ["user", "assistant", "tool"]
            assert seen[2].content == "5"
            assert seen[2].tool_call_id == seen[1].tool_calls[0].id == "c1"

    run(scenario())


def test_live_events_are_the_journal_with_the_text_between(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        followed = asyncio.Event()
        async with harness(tmp_path, [[followed, "Hel", "lo"]]) as h:
            run_id = await h.runtime.start(spec(), "greet")
            live = []
            async for record in h.runtime.events(run_id):
                live.append(record)
                if isinstance(record.event, ModelAsked):
                    followed.set()
            history = [r async for r in h.runtime.events(run_id)]
            assert [r for r in live if not r.live] == history == h.records(run_id)
            texts = [r.event.text for r in live if isinstance(r.event, TextStreamed)]
            assert texts == ["Hel", "lo"]
            assert fold(live) == fold(history)
            assert [r.sequence for r in history] == list(range(1, len(history) + 1))
            later = [r async for r in h.runtime.events(run_id, after=3)]
            assert later == history[3:]

    run(scenario())


def test_everything_that_the_request_should_carry_travels_with_it(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [[call("add", a=1, b=1)], ["2"]], [add]) as h:
            agent = spec(tools=("add",), budget=Budget(tokens=1000), data_label="local", seed=7)
            state = await h.work(agent, tenant="t1", objective=Objective(ttft_s=0.5))
            first, second = h.backend.requests
            assert first.tenant == "t1"
            assert first.context.run_id == state.run_id
            assert (first.context.step, second.context.step) == (1, 2)
            assert first.context.objective == Objective(ttft_s=0.5)
            assert first.context.data_label == "local"
            assert first.context.hints.next == "tool"
            assert first.sampling.seed == 7
            assert second.context.budget.tokens is not None
            assert second.context.budget.tokens < 1000
            assert first.id != second.id

    run(scenario())


def test_bad_arguments_are_told_to_the_model_which_may_repair_them(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        turns = [[call("add", a="two", b=3)], [call("nope")], [call("add", a=2, b=3)], ["5"]]
        async with harness(tmp_path, turns, [add]) as h:
            state = await h.work(spec(tools=("add",)))
            assert state.status == "answered"
            assert [e.outcome for e in state.exchanges] == ["failed", "failed", "called_tools", "answered"]
            assert "'two' is not of type 'integer'" in state.exchanges[0].results[0].content
            assert "there is no tool 'nope'; known: add" in state.exchanges[1].results[0].content
            # A call that could not be made was never begun and costs nothing.
            intents = [r for r in h.records(state.run_id) if isinstance(r.event, ToolIntended)]
            assert len(intents) == 1
            assert state.ledger.used.tool_calls == 1

    run(scenario())


def test_repairs_are_bounded(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [[call("nope")]], [add], repeat=True) as h:
            state = await h.work(spec(tools=("add",)))
            assert state.status == "failed"
            assert "there is no tool 'nope'" in (state.error or "")
            assert len(h.backend.requests) == 3

    run(scenario())


def test_a_tool_that_raises_is_an_observation(tmp_path: pathlib.Path) -> None:
    @tool(effects="none")
    def broken() -> str:
        """Breaks."""
        raise ZeroDivisionError("by zero")

    async def scenario() -> None:
        async with harness(tmp_path, [[call("broken")], ["I could not."]], [broken]) as h:
            state = await h.work(spec(tools=("broken",)))
            result = state.exchanges[0].results[0]
            assert (result.status, result.content) == ("failed", "ZeroDivisionError: by zero")
            seen = h.backend.requests[1].messages
            assert seen is not None
            assert seen[-1].content == "ZeroDivisionError: by zero"
            assert (state.status, state.answer) == ("failed", "I could not.")
            assert state.error == "the last tools called had no success: ZeroDivisionError: by zero"

    run(scenario())


def test_a_run_whose_last_tools_were_of_use_is_answered_whatever_failed_before(
    tmp_path: pathlib.Path,
) -> None:
    async def scenario() -> None:
        turns = [[call("add", a="x")], [call("add", a=2, b=3)], ["It is 5."]]
        async with harness(tmp_path, turns, [add]) as h:
            state = await h.work(spec(tools=("add",)))
            assert [e.outcome for e in state.exchanges] == ["failed", "called_tools", "answered"]
            assert (state.status, state.error) == ("answered", None)

    run(scenario())


def test_a_tool_that_may_not_be_used_is_said_to_the_model_and_in_the_record(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        stale = replace(add, name="stale", blocked="it has changed since it was approved")
        async with harness(tmp_path, [["No tool is left for that."]], [add, stale, echo]) as h:
            state = await h.work(spec(tools=("add", "stale", "echo"), deny=("ec*",)))
            (event,) = [r.event for r in h.records(state.run_id) if isinstance(r.event, ToolsWithheld)]
            assert dict(event.tools) == {
                "stale": "it has changed since it was approved",
                "echo": "policy denies tool 'echo'",
            }
            (request,) = h.backend.requests
            assert [tool.name for tool in request.tools] == ["add"]
            assert request.messages is not None
            assert "stale (it has changed since it was approved)" in request.messages[0].content

    run(scenario())


def test_a_question_orders_nothing_in_guided_mode(tmp_path: pathlib.Path) -> None:
    ordered: list[int] = []

    @tool()
    def order_lamps(count: int) -> str:
        """Orders lamps."""
        ordered.append(count)
        return f"{count} lamps ordered"

    guided = Choice(name="react", options={"mode": "guided", "min_plan": 1, "max_plan": 2})
    plan = '{"plan":[{"task":"order 10 lamps","tool":"order_lamps"}]}'

    async def scenario() -> None:
        turns = [
            ["I have no tool that counts lamps."],
            [plan],
            [call("order_lamps", count=10)],
            ["10 ordered."],
        ]
        async with harness(tmp_path, turns, [order_lamps]) as h:
            agent = spec(tools=("order_lamps",), planner=guided)
            asked = await h.work(agent, "How many lamps are there?")
            assert (asked.status, asked.answer) == ("answered", "I have no tool that counts lamps.")
            assert asked.withheld == (("order_lamps", "it may change something, and the goal only asks"),)
            assert ordered == []
            told = await h.work(agent, "Order 10 lamps.")
            assert (told.status, ordered) == ("answered", [10])

    run(scenario())


def test_a_call_written_as_text_is_never_the_answer_nor_remembered(tmp_path: pathlib.Path) -> None:
    written = '{{"name": "add", "arguments": {"a": 1}}}'

    async def scenario() -> None:
        async with harness(tmp_path, [[written]], [add], repeat=True) as h:
            state = await h.work(spec(tools=("add",)))
            assert state.status == "failed"
            assert state.answer == ""
            assert state.error is not None
            assert "tool call written as text" in state.error

    run(scenario())


def test_facts_are_answered_from_when_the_model_gets_no_further(tmp_path: pathlib.Path) -> None:
    junk = ['{"name": "nothing"']

    async def scenario() -> None:
        turns = [[call("add", a=2, b=3)], junk, junk, junk, ["It is 5."]]
        async with harness(tmp_path, turns, [add]) as h:
            state = await h.work(spec(tools=("add",), max_steps=9), "What is 2 + 3?")
            assert (state.status, state.answer) == ("answered", "It is 5.")
            asked = h.backend.requests[-1].messages
            assert asked is not None
            assert asked[-1].content.startswith("Facts:\n- 5\n\nQuestion: What is 2 + 3?")

    run(scenario())


def test_a_denied_tool_is_never_called_whatever_the_model_says(tmp_path: pathlib.Path) -> None:
    called: list[str] = []

    @tool(effects="none")
    def forbidden() -> str:
        """Deletes everything."""
        called.append("!")
        return "done"

    async def scenario() -> None:
        async with harness(tmp_path, [[call("forbidden")], ["ok"]], [forbidden]) as h:
            state = await h.work(spec(tools=("forbidden",), deny=("for*",)))
            assert state.exchanges[0].results[0].status == "denied"
            assert called == []

    run(scenario())


def test_parallel_calls_run_together_and_are_matched_by_place(tmp_path: pathlib.Path) -> None:
    running, all_begun = 0, asyncio.Event()

    @tool(effects="none")
    async def wait_for_all(number: int) -> int:
        """Returns only once all calls have begun, the last first."""
        nonlocal running
        running += 1
        if running >= 8:
            all_begun.set()
        await all_begun.wait()
        await asyncio.sleep((20 - number) / 2000)
        return number * 10

    async def scenario() -> None:
        calls = [call("wait_for_all", ident=f"id{i % 19}", number=i) for i in range(20)]
        async with harness(tmp_path, [calls, ["done"]], [wait_for_all]) as h:
            state = await h.work(spec(tools=("wait_for_all",)))
            results = state.exchanges[0].results
            assert [results[i].content for i in range(20)] == [str(i * 10) for i in range(20)]
            sent = [m for m in h.backend.requests[1].messages or () if m.role == "tool"]
            assert [m.tool_call_id for m in sent] == [f"id{i % 19}" for i in range(20)]

    run(scenario())


def test_a_backend_that_breaks_is_tried_again_and_then_given_up(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pentad.agent.model_failures._BACKOFF_S", 0.0)

    async def scenario() -> None:
        broken = BackendFailed("gone")
        async with harness(tmp_path / "a", [["hal", broken], ["fine"]]) as h:
            state = await h.work(spec())
            assert (state.status, state.answer) == ("answered", "fine")
            failed = [r.event for r in h.records(state.run_id) if isinstance(r.event, ModelFailed)]
            assert [(f.retry, f.started) for f in failed] == [(True, True)]
        async with harness(tmp_path / "b", [[broken]], repeat=True) as h:
            state = await h.work(spec())
            assert state.status == "failed"
            assert state.error == "gone"
            assert len(h.backend.requests) == 3

    run(scenario())


def test_impossible_usage_is_a_broken_backend_and_frees_no_budget(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pentad.agent.model_failures._BACKOFF_S", 0.0)

    async def scenario() -> None:
        lie = Usage(prompt_tokens=-1000, completion_tokens=1)
        async with harness(tmp_path, [["hi", lie]], repeat=True) as h:
            state = await h.work(spec(budget=Budget(tokens=5000)))
            assert state.status == "failed"
            assert "impossible usage" in (state.error or "")
            assert 0 < state.ledger.used.tokens <= 5000

    run(scenario())


def test_a_budget_ends_the_run_before_it_is_passed_and_keeps_what_there_is(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        turns = [["Looking. ", call("add", a=1, b=1)]]
        async with harness(tmp_path, turns, [add], repeat=True) as h:
            state = await h.work(spec(tools=("add",), budget=Budget(tool_calls=2), max_steps=9))
            assert state.status == "budget_exceeded"
            assert "budget.tool_calls" in (state.error or "")
            assert state.answer == "Looking."
            assert state.ledger.used.tool_calls == 2
            assert h.runtime.active == 0 or await h.runtime.wait(state.run_id)

    run(scenario())


def test_a_turn_of_calls_is_afforded_whole_or_not_begun(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        calls = [call("add", ident=str(i), a=i, b=i) for i in range(3)]
        async with harness(tmp_path, [calls], [add]) as h:
            state = await h.work(spec(tools=("add",), budget=Budget(tool_calls=2)))
            assert state.status == "budget_exceeded"
            assert not [r for r in h.records(state.run_id) if isinstance(r.event, ToolIntended)]

    run(scenario())


def test_the_token_budget_shortens_the_answer_and_then_refuses(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["x", call("add", a=1, b=1)]], [add], repeat=True) as h:
            goal = " ".join(["word"] * 50)
            state = await h.work(spec(tools=("add",), budget=Budget(tokens=120), max_tokens=100), goal)
            assert h.backend.requests[0].sampling.max_tokens == 70
            assert state.status == "budget_exceeded"
            assert state.ledger.used.tokens <= 120

    run(scenario())


def test_wall_time_is_a_budget_too(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        never = asyncio.Event()
        async with harness(tmp_path, [["partial ", never]]) as h:
            state = await h.work(spec(budget=Budget(wall_s=1.0)))
            assert state.status == "budget_exceeded"
            assert "wall" in (state.error or "")
            assert h.backend.closed_early == 1

    run(scenario())


def test_a_callers_budget_can_only_narrow(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        limits = RuntimeLimits(budget=Budget(cost=1.0))
        async with harness(tmp_path, [["hi"]], limits=limits) as h:
            agent = spec(budget=Budget(tokens=500))
            state = await h.work(agent, budget=Budget(tokens=9999, tool_calls=1, cost=5.0))
            assert state.ledger.budget == Budget(tokens=500, tool_calls=1, cost=1.0)

    run(scenario())


def test_the_last_step_must_answer(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        turns = [[call("add", a=1, b=1)], [call("add", a=2, b=2)], ["That is all I know."]]
        async with harness(tmp_path, turns, [add]) as h:
            state = await h.work(spec(tools=("add",), max_steps=3))
            assert state.status == "answered"
            assert [r.tool_choice.mode for r in h.backend.requests] == ["auto", "auto", "none"]

    run(scenario())


def test_no_answer_in_time_is_said_and_what_was_found_is_kept(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [[call("add", a=1, b=1)], [""]], [add]) as h:
            state = await h.work(spec(tools=("add",), max_steps=2))
            assert state.status == "out_of_steps"
            assert state.answer == "2"
            assert "max_steps" in (state.error or "")

    run(scenario())


def test_a_model_that_twice_says_nothing_has_refused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [[""], ["  "]]) as h:
            state = await h.work(spec())
            assert state.status == "refused"
            assert [e.outcome for e in state.exchanges] == ["failed", "refused"]

    run(scenario())


def test_a_run_can_be_cancelled_before_it_has_done_anything(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["never"]]) as h:
            run_id = await h.runtime.start(spec(), "go")
            await h.runtime.cancel(run_id)  # its task has not had its first turn
            assert h.records(run_id)[-1].kind == "run_ended"
            assert (await h.runtime.wait(run_id)).status == "cancelled"
            assert h.backend.requests == []

    run(scenario())


def test_cancel_reaches_the_model_stream_and_the_tool(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        never, tool_began, tool_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @tool(effects="unkeyed")
        async def hang() -> str:
            """Never returns."""
            tool_began.set()
            try:
                await asyncio.Event().wait()
            finally:
                tool_ended.set()
            return ""

        async with harness(tmp_path, [["Hel", never], [call("hang")]], [hang]) as h:
            first = await h.runtime.start(spec(), "talk")
            async for record in h.runtime.events(first):
                if record.live:
                    break
            await h.runtime.cancel(first)
            assert h.runtime.show(first).status == "cancelled"
            assert h.backend.closed_early == 1
            second = await h.runtime.start(spec(tools=("hang",)), "act")
            await tool_began.wait()
            await h.runtime.cancel(second)
            await tool_ended.wait()
            assert h.runtime.show(second).status == "cancelled"
            with pytest.raises(Conflict, match="already ended"):
                await h.runtime.cancel(second)

    run(scenario())


def test_closing_ends_no_run_and_another_runtime_goes_on(tmp_path: pathlib.Path) -> None:
    effects: list[str] = []

    @tool(effects="keyed")
    def pay(amount: int, context: ToolContext) -> str:
        """Pays."""
        effects.append(context.key)
        return f"paid {amount}"

    async def scenario() -> None:
        never = asyncio.Event()
        async with harness(tmp_path, [[call("pay", amount=1)], ["on", never]], [pay]) as h:
            run_id = await h.runtime.start(spec(tools=("pay",)), "pay")
            async for record in h.runtime.events(run_id):
                if record.live:
                    break
        async with harness(tmp_path, [["all paid"]], [pay]) as h:
            assert h.runtime.show(run_id).status == "running"
            assert await h.runtime.resume_all() == [run_id]
            state = await h.runtime.wait(run_id)
            assert state.answer == "all paid"
            assert len(effects) == 1
            assert any(isinstance(r.event, RunResumed) for r in h.records(run_id))
            with pytest.raises(Conflict, match="already ended"):
                await h.runtime.resume(run_id)
            assert await h.runtime.resume_all() == []

    with pytest.MonkeyPatch.context():
        run(scenario())


def test_a_run_whose_tools_are_not_here_is_left_to_who_has_them(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        never = asyncio.Event()
        async with harness(tmp_path, [[never]], [add]) as h:
            run_id = await h.runtime.start(spec(tools=("add",)), "add")
        async with harness(tmp_path, []) as h:
            assert await h.runtime.resume_all() == []
            with pytest.raises(UnknownName, match="'add'"):
                await h.runtime.resume(run_id)
            assert h.runtime.show(run_id).status == "running"
        async with harness(tmp_path, [["done"]], [add]) as h:
            assert await h.runtime.resume_all() == [run_id]
            assert (await h.runtime.wait(run_id)).answer == "done"

    run(scenario())


def test_the_operator_may_deny_tools_to_every_agent(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        limits = RuntimeLimits(deny_tools=("add",))
        async with harness(tmp_path, [[call("add", a=1, b=1)], ["no"]], [add], limits=limits) as h:
            state = await h.work(spec(tools=("add",)))
            assert state.exchanges[0].results[0].status == "denied"

    run(scenario())


def test_a_crash_inside_a_model_call_counts_as_having_used_what_was_held(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        never = asyncio.Event()
        agent = spec(budget=Budget(tokens=1000), max_tokens=300)
        async with harness(tmp_path, [[never]]) as h:
            run_id = await h.runtime.start(agent, "one two three")
            async for record in h.runtime.events(run_id):
                if isinstance(record.event, ModelAsked):
                    held = record.event.reserved_tokens
                    break
        async with harness(tmp_path, [["ok"]]) as h:
            await h.runtime.resume(run_id)
            state = await h.runtime.wait(run_id)
            assert state.status == "answered"
            assert held == 303
            assert state.ledger.used.tokens == held + state.totals.prompt_tokens + 1

    run(scenario())


def test_other_tenants_see_nothing(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["mine"]]) as h:
            state = await h.work(spec(), tenant="a")
            assert [row.id for row in h.runtime.list(tenant="a")] == [state.run_id]
            assert h.runtime.list(tenant="b") == []
            for ask in (h.runtime.show, h.runtime.explain):
                with pytest.raises(NotFound):
                    ask(state.run_id, tenant="b")
            for act in (h.runtime.cancel, h.runtime.resume, h.runtime.wait):
                with pytest.raises(NotFound):
                    await act(state.run_id, tenant="b")

    run(scenario())


def test_a_run_that_was_waited_for_has_given_its_place_back(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["done"]], repeat=True, limits=RuntimeLimits(max_runs=1)) as h:
            for _ in range(3):
                state = await h.work(spec(), "go")
                assert h.runtime.active == 0
                assert state == fold(h.records(state.run_id))

    run(scenario())


def test_too_many_runs_at_once_are_refused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        never = asyncio.Event()
        async with harness(tmp_path, [[never]], repeat=True, limits=RuntimeLimits(max_runs=2)) as h:
            for _ in range(2):
                await h.runtime.start(spec(), "wait")
            with pytest.raises(Overloaded, match="2 of 2"):
                await h.runtime.start(spec(), "wait")
            for row in h.runtime.list():
                await h.runtime.cancel(row.id)

    run(scenario())


def test_one_tenants_runs_leave_the_others_theirs_and_places_come_back(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        never, limits = asyncio.Event(), RuntimeLimits(max_runs=4, tenants=2)
        async with harness(tmp_path, [[never]], repeat=True, limits=limits) as h:
            for _ in range(2):
                await h.runtime.start(spec(), "wait", tenant="ann")
            with pytest.raises(Overloaded, match="the most for one tenant is 2"):
                await h.runtime.start(spec(), "wait", tenant="ann")
            for _ in range(2):
                await h.runtime.start(spec(), "wait", tenant="bob")
            for row in h.runtime.list(tenant="ann"):
                await h.runtime.cancel(row.id, tenant="ann")
            with pytest.raises(UnknownName):
                await h.runtime.start(spec(tools=("nope",)), "wait", tenant="ann")
            for _ in range(2):
                await h.runtime.start(spec(), "wait", tenant="ann")

    run(scenario())


@pytest.mark.parametrize(
    ("fields", "goal", "error", "says"),
    [
        ({"tools": ("nope",)}, "g", UnknownName, "known: calculator, calendar"),
        ({"planner": Choice(name="nope")}, "g", UnknownName, "known: react"),
        ({"planner": Choice(name="react", options={"depth": 3})}, "g", InvalidRequest, "depth"),
        (
            {"planner": Choice(name="react", options={"mode": "guided", "max_plan": 0})},
            "g",
            InvalidRequest,
            "max_plan",
        ),
        ({"tools": ("search",)}, "g", InvalidRequest, "tool_options.search.folder"),
        ({"tools": ("remember",)}, "g", InvalidRequest, "long-term memory"),
        ({}, "   ", InvalidRequest, "goal"),
        ({}, "x" * 300_000, InvalidRequest, "262144"),
    ],
)
def test_what_cannot_run_is_refused_before_it_starts(
    tmp_path: pathlib.Path, fields: dict[str, object], goal: str, error: type[Exception], says: str
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, []) as h:
            with pytest.raises(error, match=says):
                await h.runtime.start(spec(**fields), goal)
            assert h.runtime.list() == []

    run(scenario())


def test_history_that_does_not_fit_is_left_out_aloud(tmp_path: pathlib.Path) -> None:
    history = [
        Message(role=role, content=f"{role} turn {i} " + "word " * 20)
        for i in range(100)
        for role in ("user", "assistant")
    ]

    async def scenario() -> None:
        async with harness(tmp_path, [["hi"]], context_length=600) as h:
            state = await h.work(spec(max_tokens=100), "and now", history=history)
            (compacted,) = [r.event for r in h.records(state.run_id) if isinstance(r.event, Compacted)]
            assert compacted.after_tokens <= 500 < compacted.before_tokens
            prompt = h.backend.requests[0].messages or ()
            assert h.backend.count_tokens(h.backend.requests[0]) == compacted.after_tokens
            assert prompt[-1].content == "and now"
            assert "turn 99" in prompt[-2].content
            decisions = h.runtime.explain(state.run_id).decisions
            assert any(d.subject == "prompt" and "compacted" in d.chosen for d in decisions)

    run(scenario())


def test_overflow_may_be_summarised_by_the_model_on_the_runs_budget(tmp_path: pathlib.Path) -> None:
    history = [Message(role="user", content=f"fact {i} " + "word " * 30) for i in range(40)]

    async def scenario() -> None:
        window = Window(max_tokens=400, overflow="summarise")
        turns = [["The user told 40 facts."], ["I know."]]
        async with harness(tmp_path, turns) as h:
            state = await h.work(spec(memory=MemoryChoice(window=window)), "what?", history=history)
            assert state.summary == "The user told 40 facts."
            assert (
                "Earlier, in short: The user told 40 facts."
                in (h.backend.requests[1].messages or ())[-1].content
            )
            assert state.totals.model_calls == 2

    run(scenario())


def test_overflow_may_be_refused(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        history = [Message(role="user", content="word " * 500)]
        window = Window(max_tokens=100, overflow="refuse")
        async with harness(tmp_path, []) as h:
            state = await h.work(spec(memory=MemoryChoice(window=window)), "what?", history=history)
            assert state.status == "failed"
            assert "503 tokens" in (state.error or "") or "501 tokens" in (state.error or "")
            assert "refuse" in (state.error or "")

    run(scenario())


def test_a_goal_that_cannot_fit_is_refused_not_cut(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [], context_length=100) as h:
            state = await h.work(spec(max_tokens=50), "word " * 80)
            assert state.status == "failed"
            assert "80 tokens" in (state.error or "")
            assert h.backend.requests == []

    run(scenario())


def test_a_tool_may_ask_the_model_on_the_runs_budget(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        turns = [[call("translation", text="good day", language="French")], ["bon jour"], ["It is bon jour."]]
        async with harness(tmp_path, turns) as h:
            state = await h.work(spec(tools=("translation",)))
            assert state.exchanges[0].results[0].content == "bon jour"
            assert state.totals.model_calls == 3
            assert state.ledger.used.tokens == state.totals.prompt_tokens + state.totals.completion_tokens

    run(scenario())


@pytest.mark.row("tool-new-domain", "mechanism")
def test_a_tool_registered_during_a_run_is_used_in_the_next_step(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(
            tmp_path, [[call("echo", text="a")], [call("shop_price", item="tea")], ["3"]]
        ) as h:

            @tool(effects="none")
            def shop_price(item: str) -> int:
                """The price of an item."""
                return len(item)

            @tool(effects="none", name="echo")
            def echo_and_register(text: str) -> str:
                """Says it again."""
                h.runtime.toolbox.add(shop_price)
                return text

            h.runtime.toolbox.add(echo_and_register)
            state = await h.work(spec(tools=("echo", "shop_*")))
            offered = [[t.name for t in r.tools] for r in h.backend.requests]
            assert offered == [["echo"], ["echo", "shop_price"], ["echo", "shop_price"]]
            assert state.exchanges[1].results[0].content == "3"

    run(scenario())


def test_explain_accounts_for_the_time_of_a_run(tmp_path: pathlib.Path) -> None:
    @tool(effects="none")
    async def slow() -> str:
        """Takes its time."""
        await asyncio.sleep(0.6)
        return "done"

    async def scenario() -> None:
        async with harness(tmp_path, [[call("slow")], ["ok"]], [slow]) as h:
            state = await h.work(spec(tools=("slow",)))
            explained = h.runtime.explain(state.run_id)
            parts = {n: s for share in explained.shares for n, s in share.parts}
            assert parts["tool slow"] >= 0.59
            assert explained.residual_fraction < 0.1
            assert explained.tool_calls == 1
            chosen = [(d.layer, d.subject, d.chosen) for d in explained.decisions]
            assert ("agent", "tool", "slow") in chosen
            assert ("model", "model", "scripted") in chosen
            total = sum(share.seconds for share in explained.shares) + explained.residual_s
            assert total == pytest.approx(explained.active_s)

    run(scenario())


def test_results_stay_exact_in_the_journal_and_readable_for_the_model(tmp_path: pathlib.Path) -> None:
    hostile = "nul \0 ansi \x1b[31m surrogate \ud800 end"

    @tool(effects="none")
    def nasty() -> str:
        """Returns what no tokenizer takes."""
        return hostile

    async def scenario() -> None:
        async with harness(tmp_path, [[call("nasty")], ["ok"]], [nasty]) as h:
            state = await h.work(spec(tools=("nasty",)))
            (result,) = [r.event for r in h.records(state.run_id) if isinstance(r.event, ToolReturned)]
            assert result.content == hostile
            for record in h.records(state.run_id):
                json.dumps(record.to_json(), ensure_ascii=False).encode("utf-8")
            shown = (h.backend.requests[1].messages or ())[-1].content
            assert shown == hostile.replace("\ud800", "\ufffd")

    run(scenario())
