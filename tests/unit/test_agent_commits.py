"""What a step commits, and when: a tool's result with what it leads to, or soon by itself."""

from __future__ import annotations

import asyncio
import pathlib
import sqlite3
from collections.abc import Sequence

import pytest

from agent_support import Harness, call, harness, run, spec
from pentad.agent.events import Record
from pentad.agent.tool_offers import ToolOffers
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool


@tool(effects="unkeyed")
async def act() -> str:
    """Acts."""
    return "done"


async def committed(h: Harness) -> list[list[str]]:
    """What each commit of a run holds."""
    commits: list[list[str]] = []
    with h.journal.watch(None, lambda records: commits.append([r.kind for r in records])):
        state = await h.work(spec(tools=("act",)))
    assert state.status == "answered"
    assert state.exchanges[0].results[0].content == "done"
    return commits


def slow_choice(monkeypatch: pytest.MonkeyPatch, go_on: asyncio.Event) -> None:
    """After the first step nothing is offered to the model before `go_on`."""
    plain = ToolOffers.choose

    async def choose(self: ToolOffers, allowed: Sequence[Tool]) -> tuple[Tool, ...]:
        if self._run.state.closed:
            await go_on.wait()
        return await plain(self, allowed)

    monkeypatch.setattr(ToolOffers, "choose", choose)


def test_a_step_commits_twice(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pentad.agent.run._COMPANY_S", 20.0)  # however busy the machine is

    async def scenario() -> None:
        async with harness(tmp_path, [[call("act")], [call("act")], ["fine"]], [act]) as h:
            commits = await committed(h)
            step = [["model_answered", "tool_intended"], ["tool_returned", "step_ended", "model_asked"]]
            assert commits == [
                ["run_started"],
                ["model_asked"],
                *step,
                *step,
                ["model_answered", "step_ended", "run_ended"],
            ]

    run(scenario())


def test_a_result_that_nothing_follows_is_committed_by_itself(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        go_on = asyncio.Event()
        slow_choice(monkeypatch, go_on)
        loop = asyncio.get_running_loop()

        def seen(records: Sequence[Record]) -> None:
            if any(record.kind == "tool_returned" for record in records):
                loop.call_soon_threadsafe(go_on.set)

        async with harness(tmp_path, [[call("act")], ["fine"]], [act]) as h:
            with h.journal.watch(None, seen):  # the next step waits until the result is in the journal
                commits = await committed(h)
            assert ["tool_returned", "step_ended"] in commits
            assert ["model_asked"] in commits[3:]

    run(scenario())


def test_a_result_outlives_a_full_disk_on_its_own(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pentad.agent.stalls._MOST_S", 0.1)
    full, failures, effects = False, 0, 0
    go_on: asyncio.Event | None = None

    @tool(effects="unkeyed")
    async def fills() -> str:
        """Acts; the disk fills up meanwhile."""
        nonlocal full, effects
        full, effects = True, effects + 1
        return "done"

    def on_commit(moment: str) -> None:
        nonlocal full, failures
        if full and moment == "before":
            failures += 1
            full = failures < 3
            raise sqlite3.OperationalError("database or disk is full")

    async def scenario() -> None:
        nonlocal go_on
        go_on = asyncio.Event()
        slow_choice(monkeypatch, go_on)
        async with harness(tmp_path, [[call("fills")], ["fine"]], [fills], on_commit=on_commit) as h:
            run_id = await h.runtime.start(spec(tools=("fills",)), "do it")
            while h.runtime.show(run_id).status != "stalled":  # noqa: ASYNC110 - a state, not an event
                await asyncio.sleep(0.01)
            go_on.set()  # the next step comes to its model call while the result is not written
            state = await h.runtime.wait(run_id)
            assert (state.status, effects, failures) == ("answered", 1, 3)
            kinds = [record.kind for record in h.records(run_id)]
            assert kinds.count("tool_returned") == 1
            assert [record.sequence for record in h.records(run_id)] == list(range(1, len(kinds) + 1))

    run(scenario())
