"""No run is left standing: those of dead processes are taken up, and a journal that is away is waited for."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent_support import Harness, call, harness, run, spec
from pentad.agent.events import RunEnded, RunStarted, StepEnded
from pentad.agent.journal import Journal
from pentad.agent.journal_store.base import JournalUnavailable
from pentad.agent.spec import AgentSpec
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.functions import tool
from pentad.choice import Choice

LEFT = """
import asyncio, pathlib, sys
from pentad.agent.codec import encode
from pentad.agent.events import RunStarted
from pentad.agent.journal import Journal
from pentad.agent.spec import AgentSpec
from pentad.choice import Choice
agent = AgentSpec(name="left", planner=Choice(name="react", options={"max_plan": 0}))
journal = Journal(pathlib.Path(sys.argv[1]))
asyncio.run(journal.append("r", RunStarted(agent=encode(agent), goal="go on", tenant="default")))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come sooner than in a server."""
    monkeypatch.setattr("pentad.agent.resumer._SOON_S", 0.02)
    monkeypatch.setattr("pentad.agent.resumer._MOST_S", 0.1)
    monkeypatch.setattr("pentad.agent.stalls._LEAST_S", 0.02)


@pytest.fixture
def other(tmp_path: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works on the run `r` of the same journal."""
    words = [sys.executable, "-c", LEFT, str(tmp_path / "journal.db")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_run_is_taken_up_when_the_process_that_has_it_dies(
    tmp_path: pathlib.Path, other: subprocess.Popen[str]
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["done"]]) as h:
            assert await h.runtime.resume_all() == []
            await asyncio.sleep(0.5)
            assert [record.kind for record in h.records("r")] == ["run_started"]
            other.send_signal(signal.SIGKILL)
            other.wait()
            assert (await h.runtime.wait("r")).answer == "done"
            assert sum(record.kind == "run_resumed" for record in h.records("r")) == 1

    run(scenario())


def test_looking_again_tells_once_of_what_can_not_go_on(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    @tool(effects="none")
    def look() -> str:
        """Looks."""
        return "seen"

    async def scenario() -> None:
        async with harness(tmp_path, [[asyncio.Event()]], [look], repeat=True) as h:
            await h.runtime.start(spec(tools=("look",)), "without its tool")
            await h.runtime.start(spec(), "someone's", foreground=True)
        async with harness(tmp_path, []) as h:
            assert await h.runtime.resume_all() == []
            await asyncio.sleep(0.5)
            assert h.runtime.active == 0
        told = [record.message for record in caplog.records if "is not resumed" in record.message]
        assert len(told) == 1
        assert "'look'" in told[0]

    run(scenario())


class Away:
    """A journal that can be away, each time for the next few things that are asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.times, self.failed = 0, 0
        for name in names:
            monkeypatch.setattr(Journal, name, self._failing(getattr(Journal, name)))

    def _failing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*words: Any, **options: Any) -> Any:
            if self.times:
                self.times -= 1
                self.failed += 1
                error = JournalUnavailable("the server is away")
                error.passing = True
                raise error
            return method(*words, **options)

        return asked


TEAM = spec(
    name="lead",
    coordinator=Choice(name="supervisor"),
    agents={"ann": AgentSpec(name="ann", planner=Choice(name="react", options={"max_plan": 0}))},
)


def test_a_sub_run_waits_for_a_journal_that_can_not_be_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        turns = [[call("delegate", member="ann", task="one")], ["ann is done"], ["all done"]]
        async with harness(tmp_path, turns) as h:
            away = Away(monkeypatch, "read", "claim")
            run_id = await h.runtime.start(TEAM, "go")
            away.times = 3  # whatever reads next, which is the lead that looks for its sub-run
            while h.runtime.active:  # noqa: ASYNC110 - following it would read too
                await asyncio.sleep(0.01)
            assert away.failed == 3
            assert h.runtime.show(run_id).answer == "all done"

    run(scenario())


def test_a_run_that_was_given_up_is_taken_up_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something outside of the loop's care needed the journal while it was away."""

    async def scenario() -> None:
        async with harness(tmp_path, [["done"]]) as h:
            await h.runtime.resume_all()
            away = Away(monkeypatch, "claim")
            find, failed = h.runtime._tools.finder, []

            def finder(under_way: Any) -> Any:
                if not failed:
                    failed.append(under_way)
                    error = JournalUnavailable("the server is away")
                    error.passing = True
                    raise error
                return find(under_way)

            monkeypatch.setattr(h.runtime._tools, "finder", finder)
            away.times = 2
            run_id = await h.runtime.start(spec(), "go")
            assert (await h.runtime.wait(run_id)).answer == "done"
            assert (len(failed), away.failed) == (1, 2)

    run(scenario())


def test_a_commit_in_doubt_is_settled_before_the_next_of_the_run(tmp_path: pathlib.Path) -> None:
    """Its answer is lost, and another part of the run writes before it is asked for again."""
    commits = 0

    def on_commit(moment: str) -> None:
        nonlocal commits
        commits += moment == "after"
        if moment == "after" and commits == 2:
            raise sqlite3.OperationalError("the answer of the commit is lost")

    def returned(index: int) -> ToolReturned:
        return ToolReturned(step=1, index=index, call_id="c", tool="t", status="ok", content="")

    async def scenario() -> None:
        journal = Journal(tmp_path / "journal.db", on_commit=on_commit)
        await journal.append("r", RunStarted(agent={}, goal="g", tenant="t"))
        with pytest.raises(JournalUnavailable):
            await journal.append("r", returned(0))
        assert (await journal.append("r", returned(1))).sequence == 3
        assert (await journal.append("r", returned(0))).sequence == 2  # it had happened
        await journal.append("r", StepEnded(step=1, outcome="called_tools"))
        await journal.append("r", RunEnded(status="answered"))
        kinds = [record.kind for record in journal.read("r")]
        assert kinds == ["run_started", "tool_returned", "tool_returned", "step_ended", "run_ended"]
        assert journal.check_integrity() == []
        journal.close()

    run(scenario())


def test_a_runtime_that_lost_a_run_writes_no_more_of_it(tmp_path: pathlib.Path) -> None:
    """It stops where it is, quietly, and whoever has taken the run over goes on."""
    gate = asyncio.Event()

    async def scenario() -> None:
        first = Harness(tmp_path, [["late", gate]])
        run_id = await first.runtime.start(spec(), "go")
        async for record in first.runtime.events(run_id):
            if record.live:
                break
        with sqlite3.connect(tmp_path / "journal.db") as db:  # as if it were believed dead
            db.execute("UPDATE runs SET owner = NULL")
        async with harness(tmp_path, [["done"]]) as h:
            assert await h.runtime.resume_all() == [run_id]
            assert (await h.runtime.wait(run_id)).answer == "done"
            gate.set()
            await first.runtime.close()

    run(scenario())
