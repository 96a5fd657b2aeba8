"""Approval by a person: nothing is intended before it, and it outlives the process."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from agent_support import Harness, call, harness, run, spec
from pentad.agent.approval import ApprovalDesk
from pentad.agent.explain import explain
from pentad.agent.journal import Journal
from pentad.agent.state import RunState, fold
from pentad.agent.tool_events import ApprovalAnswered, ApprovalAsked, ToolIntended
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.agent.unattended import answer_unattended, cancel_unattended
from pentad.errors import Conflict, InvalidRequest, NotFound
from pentad.types import Budget

TURNS = [[call("order", lamps=10)], ["done"]]


def ledger() -> tuple[Tool, list[int]]:
    """A tool with an outside effect, and its effects."""
    made: list[int] = []

    @tool
    def order(lamps: int) -> str:
        """Orders lamps."""
        made.append(lamps)
        return f"ordered {lamps}"

    return order, made


async def asked(h: Harness, run_id: str, count: int = 1) -> RunState:
    """The run once it waits for `count` answers."""
    seen = 0
    async with asyncio.timeout(10), aclosing(h.runtime.events(run_id)) as records:
        async for record in records:
            seen += isinstance(record.event, ApprovalAsked)
            if seen == count:
                break
    return h.runtime.show(run_id)


def kinds(h: Harness, run_id: str) -> list[str]:
    return [record.kind for record in h.records(run_id)]


def test_a_call_waits_for_a_person_and_is_intended_only_after(tmp_path: pathlib.Path) -> None:
    order, made = ledger()

    async def scenario() -> None:
        async with harness(tmp_path, TURNS, [order]) as h:
            run_id = await h.runtime.start(spec(tools=("order",), ask=("ord*",)), "lamps")
            state = await asked(h, run_id)
            (approval,) = state.pending.values()
            assert (approval.tool, approval.arguments) == ("order", '{"lamps": 10}')
            assert (state.status, made) == ("waiting", [])
            assert "tool_intended" not in kinds(h, run_id)
            assert [row.status for row in h.runtime.list(status="waiting")] == ["waiting"]
            await h.runtime.answer(run_id, approval.approval_id, approved=True)
            assert (await h.runtime.wait(run_id)).status == "answered"
            assert made == [10]
            order_of = kinds(h, run_id)
            places = [order_of.index(k) for k in ("approval_asked", "approval_answered", "tool_intended")]
            assert places == sorted(places)
            with pytest.raises(Conflict, match="already approved"):
                await h.runtime.answer(run_id, approval.approval_id, approved=False)

    run(scenario())


def test_a_denied_call_is_told_to_the_model_in_the_persons_words(tmp_path: pathlib.Path) -> None:
    order, made = ledger()

    async def scenario() -> None:
        async with harness(tmp_path, TURNS, [order]) as h:
            run_id = await h.runtime.start(spec(tools=("order",), ask=("order",)), "lamps")
            (approval,) = (await asked(h, run_id)).pending
            with pytest.raises(InvalidRequest, match="at most 2000"):
                await h.runtime.answer(run_id, approval, approved=False, note="x" * 2001)
            with pytest.raises(NotFound, match=f"pending: {approval}"):
                await h.runtime.answer(run_id, "apr_other", approved=False)
            with pytest.raises(NotFound):
                await h.runtime.answer(run_id, approval, approved=True, tenant="another")
            await h.runtime.answer(run_id, approval, approved=False, note="we have enough")
            state = await h.runtime.wait(run_id)
            result = state.exchanges[0].results[0]
            assert (result.status, made) == ("denied", [])
            assert "a person denied it and said: we have enough" in result.content
            assert "tool_intended" not in kinds(h, run_id)

    run(scenario())


@pytest.mark.parametrize(
    ("expired", "status", "effects"),
    [("deny", "answered", []), ("allow", "answered", [10]), ("fail", "failed", [])],
)
def test_a_question_that_nobody_answers_ends_as_declared(
    tmp_path: pathlib.Path, expired: str, status: str, effects: list[int]
) -> None:
    order, made = ledger()

    async def scenario() -> None:
        agent = spec(tools=("order",), ask=("order",), ask_timeout_s=0.05, ask_expired=expired)
        async with harness(tmp_path, TURNS, [order]) as h:
            state = await h.work(agent)
            assert (state.status, made) == (status, effects)
            (answer,) = (r.event for r in h.records(state.run_id) if isinstance(r.event, ApprovalAnswered))
            assert (answer.by, answer.note) == ("timeout", "nobody answered within 0.05 s")
            if status == "failed":
                assert "ask_timeout_s" in (state.error or "")

    run(scenario())


def test_waiting_uses_no_wall_time_of_the_budget(tmp_path: pathlib.Path) -> None:
    order, made = ledger()

    async def scenario() -> None:
        agent = spec(tools=("order",), ask=("order",), budget=Budget(wall_s=60.0))
        away_s = 0.0
        async with harness(tmp_path, TURNS, [order], clock=lambda: time.monotonic() + away_s) as h:
            run_id = await h.runtime.start(agent, "lamps")
            (approval,) = (await asked(h, run_id)).pending
            away_s = 3600.0
            await h.runtime.answer(run_id, approval, approved=True)
            state = await h.runtime.wait(run_id)
            assert (state.status, made) == ("answered", [10])
            assert state.active_s < 60.0
            (bar,) = (b for b in h.runtime.explain(run_id).waterfall if b.kind == "waiting")
            assert bar.seconds > 3599

    run(scenario())


def test_calls_of_one_turn_are_asked_together_and_answered_in_any_order(tmp_path: pathlib.Path) -> None:
    order, made = ledger()
    turns = [[call("order", ident="a", lamps=1), call("order", ident="b", lamps=2)], ["done"]]

    async def scenario() -> None:
        async with harness(tmp_path, turns, [order]) as h:
            run_id = await h.runtime.start(spec(tools=("order",), ask=("*",)), "lamps")
            first, second = (await asked(h, run_id, 2)).pending
            await h.runtime.answer(run_id, second, approved=True)
            assert h.runtime.show(run_id).status == "waiting"
            assert made == []
            await h.runtime.answer(run_id, first, approved=False)
            await h.runtime.wait(run_id)
            assert made == [2]

    run(scenario())


def test_an_answer_that_comes_before_the_run_begins_to_wait_holds(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, made = ledger()
    wait, answered = ApprovalDesk.wait, asyncio.Event()

    async def late(desk: ApprovalDesk, approval_id: str) -> ApprovalAnswered:
        await answered.wait()
        return await wait(desk, approval_id)

    monkeypatch.setattr(ApprovalDesk, "wait", late)

    async def scenario() -> None:
        async with harness(tmp_path, TURNS, [order]) as h:
            run_id = await h.runtime.start(spec(tools=("order",), ask=("order",)), "lamps")
            state = await asked(h, run_id)
            await h.runtime.answer(run_id, next(iter(state.pending)), approved=True)
            answered.set()
            assert (await h.runtime.wait(run_id)).status == "answered"
            assert made == [10]

    run(scenario())


async def left_waiting(path: pathlib.Path, order: Tool, turns: Sequence[object] = TURNS) -> tuple[str, str]:
    """A run whose process went away while it waited: its id and the approval's."""
    async with harness(path, turns, [order]) as h:  # type: ignore[arg-type]
        run_id = await h.runtime.start(spec(tools=("order",), ask=("order",)), "lamps")
        (approval,) = (await asked(h, run_id)).pending
    return run_id, approval


def test_the_question_outlives_the_process_and_is_not_asked_twice(tmp_path: pathlib.Path) -> None:
    order, made = ledger()

    async def scenario() -> None:
        run_id, approval = await left_waiting(tmp_path, order)
        async with harness(tmp_path, [["done"]], [order]) as h:
            assert h.runtime.show(run_id).status == "waiting"
            assert await h.runtime.resume_all() == [run_id]
            assert list((await asked(h, run_id)).pending) == [approval]
            await h.runtime.answer(run_id, approval, approved=True)
            assert (await h.runtime.wait(run_id)).status == "answered"
            assert made == [10]
            events = [r.event for r in h.records(run_id)]
            assert sum(isinstance(event, ApprovalAsked) for event in events) == 1

    run(scenario())


def test_an_answer_given_while_no_process_is_at_work_holds_for_the_next(tmp_path: pathlib.Path) -> None:
    order, made = ledger()

    async def scenario() -> None:
        run_id, approval = await left_waiting(tmp_path, order)
        journal = Journal(tmp_path / "journal.db")
        await answer_unattended(journal, run_id, approval, approved=True)
        assert fold(journal.read(run_id)).status == journal.run(run_id).status == "running"
        journal.close()
        async with harness(tmp_path, [["done"]], [order]) as h:
            await h.runtime.resume(run_id)
            assert (await h.runtime.wait(run_id)).status == "answered"
            assert made == [10]

    run(scenario())


@pytest.mark.parametrize("end", ["answered", "cancelled"])
def test_waiting_for_a_person_is_no_work_whoever_ends_it(tmp_path: pathlib.Path, end: str) -> None:
    order, _ = ledger()

    async def scenario() -> None:
        run_id, approval = await left_waiting(tmp_path, order)
        left = Journal(tmp_path / "journal.db")
        before = explain(left.read(run_id))
        left.close()
        later = Journal(tmp_path / "journal.db", clock=lambda: time.monotonic() + 60)
        if end == "answered":
            await answer_unattended(later, run_id, approval, approved=True)
        else:
            await cancel_unattended(later, run_id)
        found = explain(later.read(run_id))
        later.close()
        assert found.active_s < before.active_s + 5
        assert 55 < found.waiting_s < 120
        assert found.residual_s < 5
        assert any(bar.kind == "waiting" and bar.seconds > 55 for bar in found.waterfall)

    run(scenario())


def test_answering_a_run_that_nobody_works_on_takes_it_up(tmp_path: pathlib.Path) -> None:
    order, made = ledger()

    async def scenario() -> None:
        run_id, approval = await left_waiting(tmp_path, order)
        async with harness(tmp_path, [["done"]], [order]) as h:
            await h.runtime.answer(run_id, approval, approved=True)
            assert (await h.runtime.wait(run_id)).status == "answered"
            assert made == [10]

    run(scenario())


def test_a_waiting_run_can_be_cancelled(tmp_path: pathlib.Path) -> None:
    order, made = ledger()

    async def scenario() -> None:
        async with harness(tmp_path, TURNS, [order]) as h:
            run_id = await h.runtime.start(spec(tools=("order",), ask=("order",)), "lamps")
            (approval,) = (await asked(h, run_id)).pending
            await h.runtime.cancel(run_id)
            state = h.runtime.show(run_id)
            assert (state.status, state.pending, made) == ("cancelled", {}, [])
            with pytest.raises(Conflict, match="already ended"):
                await h.runtime.answer(run_id, approval, approved=True)

    run(scenario())


def test_what_needs_no_approval_is_not_asked(tmp_path: pathlib.Path) -> None:
    order, made = ledger()

    async def scenario() -> None:
        async with harness(tmp_path, TURNS, [order]) as h:
            state = await h.work(spec(tools=("order",), ask=("other__*",)))
            assert made == [10]
            assert any(isinstance(r.event, ToolIntended) for r in h.records(state.run_id))
            assert "approval_asked" not in kinds(h, state.run_id)

    run(scenario())
