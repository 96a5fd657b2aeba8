"""Runs on a full or failing disk: they wait, say so, lose nothing and go on by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator

import pytest

from agent_support import Harness, call, harness, run, spec
from pentad.agent.journal_store.base import JournalUnavailable
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.errors import Unavailable
from pentad.types import Budget

pytestmark = pytest.mark.thorough


class Disk:
    """A disk that can be full, in place of the one under the journal's commits."""

    def __init__(self) -> None:
        self.full = False
        self.effects = 0

    def on_commit(self, moment: str) -> None:
        if self.full and moment == "before":
            raise sqlite3.OperationalError("database or disk is full")

    def filling(self) -> Tool:
        @tool(effects="unkeyed")
        def act() -> str:
            """Acts; the disk fills up meanwhile."""
            self.effects += 1
            self.full = True
            return "done"

        return act


async def stalled(h: Harness, run_id: str) -> None:
    """Returns once the run waits for the disk."""
    async with asyncio.timeout(20):
        while h.runtime.show(run_id).status != "stalled":  # noqa: ASYNC110 - a state, not an event
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """Looks that wait for the disk come sooner than in a server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pentad.agent.stalls._MOST_S", 0.1)
        patch.setattr("pentad.agent.runtime._AGAIN_S", 0.05)
        yield


def test_a_run_waits_for_space_and_goes_on_by_itself(tmp_path: pathlib.Path) -> None:
    disk = Disk()

    async def scenario() -> None:
        turns, tools = [[call("act")], ["fine"]], [disk.filling()]
        async with harness(tmp_path, turns, tools, on_commit=disk.on_commit) as h:
            run_id = await h.runtime.start(spec(tools=("act",)), "act", budget=Budget(wall_s=30))
            await stalled(h, run_id)
            assert "disk is full" in (h.runtime.show(run_id).error or "")
            assert [row.status for row in h.runtime.list(status="stalled")] == ["stalled"]
            assert h.runtime.list(status="running") == []
            with pytest.raises(Unavailable, match="disk is full"):
                await h.runtime.start(spec(), "another")
            with pytest.raises(JournalUnavailable, match="disk is full"):
                async for _ in h.runtime.events(run_id):
                    pass
            assert "disk is full" in (await h.runtime.trouble() or "")
            disk.full = False
            state = await h.runtime.wait(run_id)
            assert state.status == "answered"
            # What the tool returned was kept meanwhile: nothing is in doubt, nothing is done twice.
            assert disk.effects == 1
            assert state.exchanges[0].results[0].content == "done"
            assert await h.runtime.trouble() is None

    with soon():
        run(scenario())


def test_readiness_comes_back_without_any_run(tmp_path: pathlib.Path) -> None:
    disk = Disk()

    async def scenario() -> None:
        async with harness(tmp_path, [], on_commit=disk.on_commit) as h:
            assert await h.runtime.trouble() is None
            disk.full = True
            with pytest.raises(Unavailable):
                await h.runtime.start(spec(), "go")
            assert "disk is full" in (await h.runtime.trouble() or "")
            disk.full = False
            assert await h.runtime.trouble() is None

    run(scenario())


def test_time_without_a_disk_is_not_of_the_budget(tmp_path: pathlib.Path) -> None:
    disk = Disk()

    async def scenario() -> None:
        turns, tools = [[call("act")], ["fine"]], [disk.filling()]
        async with harness(tmp_path, turns, tools, on_commit=disk.on_commit) as h:
            run_id = await h.runtime.start(spec(tools=("act",)), "act", budget=Budget(wall_s=3))
            await stalled(h, run_id)
            await asyncio.sleep(3.2)
            disk.full = False
            assert (await h.runtime.wait(run_id)).status == "answered"

    with soon():
        run(scenario())


def test_a_stalled_run_that_is_cancelled_ends_when_there_is_space(tmp_path: pathlib.Path) -> None:
    disk = Disk()

    async def scenario() -> None:
        turns, tools = [[call("act")], ["fine"]], [disk.filling()]
        async with harness(tmp_path, turns, tools, on_commit=disk.on_commit) as h:
            run_id = await h.runtime.start(spec(tools=("act",)), "act")
            await stalled(h, run_id)
            with pytest.raises(JournalUnavailable, match="cancelled once the journal can be written"):
                await h.runtime.cancel(run_id)
            disk.full = False
            assert (await h.runtime.wait(run_id)).status == "cancelled"

    with soon():
        run(scenario())


def test_a_server_that_stops_meanwhile_leaves_the_run_to_the_next(tmp_path: pathlib.Path) -> None:
    disk = Disk()

    async def scenario() -> None:
        turns, tools = [[call("act")], ["fine"]], [disk.filling()]
        h = Harness(tmp_path, turns, tools, on_commit=disk.on_commit)
        run_id = await h.runtime.start(spec(tools=("act",)), "act")
        await stalled(h, run_id)
        async with asyncio.timeout(20):
            await h.runtime.close()
        async with harness(tmp_path, [["fine"]], tools, on_commit=disk.on_commit) as h:
            assert await h.runtime.resume_all() == []
            disk.full = False
            state = await h.runtime.wait(run_id)
            # Its result was never acknowledged, so the effect is in doubt and not repeated.
            assert disk.effects == 1
            assert state.exchanges[0].results[0].status == "unknown"
            assert state.status == "answered"

    with soon():
        run(scenario())
