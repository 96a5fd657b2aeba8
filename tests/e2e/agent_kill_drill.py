"""Kills an agent process at every journal write, resumes it, and prints what came of each case.

Run as a program by test_agent_kill.py. Every case is a child process that really dies of SIGKILL;
children are forked, so that imports are paid once.

    python agent_kill_drill.py FOLDER                  one JSON line per case
    python agent_kill_drill.py FOLDER CASES SEED       killed at random instants instead

With DRILL_POSTGRES, a connection string, the journal of every case is a schema of that database.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import jsonschema  # noqa: F401  (imported before the forks, as pentad imports it on use)

from pentad.agent.events import Record
from pentad.agent.journal import Journal
from pentad.agent.journal_store.base import JournalUnavailable
from pentad.agent.journal_store.postgres import PostgresStore
from pentad.agent.planning import react  # noqa: F401
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.tool_events import ApprovalAnswered, ApprovalAsked, ToolIntended
from pentad.agent.tools.base import Tool, Toolbox, ToolContext
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import Item, ScriptedBackend
from pentad.types import Request, ToolCall

STEPS = 6
T = TypeVar("T")


class Work(Protocol):
    """What a child does until it ends or dies; the number of its commits."""

    def __call__(
        self, folder: pathlib.Path, kill_at: int, when: str, *, fresh: bool
    ) -> Coroutine[Any, Any, int]: ...


SPEC = AgentSpec(
    name="drill",
    tools=("pay", "post", "look"),
    ask=("pay",),
    planner=Choice(name="react", options={"max_plan": 0}),
    max_steps=STEPS + 2,
)


def journal_of(folder: pathlib.Path, on_commit: Callable[[str], None] | None = None) -> Journal:
    """The case's journal: a file in its folder, or a schema of the database."""
    url = os.environ.get("DRILL_POSTGRES")
    if url is None:
        return Journal(folder / "journal.db", on_commit=on_commit)
    schema = f"case_{zlib.crc32(str(folder).encode()):08x}"
    return Journal(in_schema(url, schema, folder / "journal.db"), on_commit=on_commit)


def in_schema(url: str, schema: str, key_at: pathlib.Path) -> PostgresStore:
    """The database of a journal that is one of many in a server; made if it is not there."""
    import psycopg

    while True:
        try:
            with psycopg.connect(url, autocommit=True) as db:
                db.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
            return PostgresStore(f"{url}?options=-csearch_path%3D{schema}", key_at)
        except psycopg.OperationalError:  # the server is being started anew
            time.sleep(0.05)


def ledger(folder: pathlib.Path) -> sqlite3.Connection:
    """The outside world: `keyed` refuses a key that it has seen, `unkeyed` takes everything."""
    db = sqlite3.connect(folder / "outside.db", isolation_level=None, timeout=10)
    db.execute("CREATE TABLE IF NOT EXISTS keyed (key TEXT PRIMARY KEY, amount INTEGER)")
    db.execute("CREATE TABLE IF NOT EXISTS unkeyed (amount INTEGER)")
    return db


def tools(folder: pathlib.Path) -> list[Tool]:
    @tool(effects="keyed")
    def pay(amount: int, context: ToolContext) -> str:
        """Pays an amount."""
        with ledger(folder) as db:
            db.execute("INSERT OR IGNORE INTO keyed VALUES (?, ?)", (context.key, amount))
        return f"paid {amount}"

    @tool(effects="unkeyed")
    def post(amount: int) -> str:
        """Posts an amount; the receiver has no way to see a repetition."""
        with ledger(folder) as db:
            db.execute("INSERT INTO unkeyed VALUES (?)", (amount,))
        return f"posted {amount}"

    @tool(effects="none")
    def look(amount: int) -> str:
        """Looks."""
        return f"saw {amount}"

    return [pay, post, look]


def model(request: Request) -> Sequence[Item]:
    """Calls pay, post, look in turn, two at once in the fourth step, then answers."""
    done = sum(m.role == "assistant" for m in request.messages or ())
    if done >= STEPS:
        return ["all done"]
    name = ("pay", "post", "look")[done % 3]
    calls: list[Item] = [ToolCall(id=f"c{done}", name=name, arguments=json.dumps({"amount": done}))]
    if done == 3:
        calls.append(ToolCall(id="extra", name="pay", arguments='{"amount": 100}'))
    return calls


async def work(folder: pathlib.Path, kill_at: int, when: str, *, fresh: bool) -> int:
    """Starts or resumes the run and works until its end, or until the `kill_at`-th commit."""
    commits = 0

    def on_commit(moment: str) -> None:
        nonlocal commits
        commits += moment == "before"
        if commits == kill_at and moment == when:
            os.kill(os.getpid(), signal.SIGKILL)

    models = ModelService({"m": ScriptedBackend([model], repeat=True)}, router=Fixed())
    journal = patiently(lambda: journal_of(folder, on_commit))
    runtime = AgentRuntime(models, journal, toolbox=Toolbox(tools(folder)))
    if fresh:
        await insisting(lambda: runtime.start(SPEC, "do it"))
    else:
        await insisting(runtime.resume_all)
    for row in patiently(runtime.list):
        await attend(runtime, row.id)
    await runtime.close()
    return commits


async def attend(runtime: AgentRuntime, run_id: str) -> None:
    """Follows the run to its end and approves whatever it asks."""
    seen = 0

    async def follow() -> None:
        nonlocal seen
        async for record in runtime.events(run_id, seen):
            if isinstance(record.event, ApprovalAsked):
                asked = record.event.approval_id
                if asked in runtime.show(run_id).pending:
                    await runtime.answer(run_id, asked, approved=True)
            seen = record.sequence

    await insisting(follow)


def unapproved(records: Sequence[Record]) -> int:
    """Intents of `pay` that came before their approval, and questions that were put twice."""
    approved: set[tuple[int, int]] = set()
    asked: set[tuple[int, int]] = set()
    wrong = 0
    for event in (record.event for record in records):
        if isinstance(event, ApprovalAsked):
            wrong += (event.step, event.index) in asked
            asked.add((event.step, event.index))
        elif isinstance(event, ApprovalAnswered):
            approved.add((event.step, event.index))
        elif isinstance(event, ToolIntended) and event.tool == "pay":
            wrong += (event.step, event.index) not in approved
    return wrong


def child(
    folder: pathlib.Path,
    kill_at: int,
    when: str,
    *,
    fresh: bool,
    after_s: float | None = None,
    task: Work | None = None,
) -> int:
    """The number of commits of a child that lived, or -1 for one that was killed.

    It kills itself at a commit, or is killed once `after_s` have passed.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            commits = asyncio.run((task or work)(folder, kill_at, when, fresh=fresh))
            os.write(write, str(commits).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    if after_s is not None:
        # Not reaped before it is killed, so the id is still its own.
        timer = threading.Timer(after_s, os.kill, (pid, signal.SIGKILL))
        timer.start()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        timer.cancel()
        timer.join()
    _, status = os.waitpid(pid, 0)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return -1
    assert status == 0, f"the child failed at commit {kill_at} {when}"
    return int(told)


def case(folder: pathlib.Path, kill_at: int, when: str, again_at: int) -> dict[str, object]:
    """One drill: killed once, killed again while resuming if `again_at`, then left to finish."""
    folder.mkdir()
    killed = child(folder, kill_at, when, fresh=True) == -1
    killed_again = bool(again_at) and child(folder, again_at, "before", fresh=False) == -1
    child(folder, 0, when, fresh=False)
    return {
        "kill_at": kill_at,
        "when": when,
        "killed": killed,
        "killed_again": killed_again,
        **outcome(folder),
    }


def random_case(folder: pathlib.Path, dice: random.Random, whole_s: float) -> dict[str, object]:
    """Killed at a random instant, and up to twice more while it is gone on with; then left to finish."""
    folder.mkdir()
    after_s = dice.uniform(0.2, 1.0) * whole_s
    killed = int(child(folder, 0, "", fresh=True, after_s=after_s) == -1)
    for _ in range(dice.randrange(3)):
        killed += child(folder, 0, "", fresh=False, after_s=dice.uniform(0, whole_s)) == -1
    child(folder, 0, "", fresh=False)
    found = {"after_s": round(after_s, 4), "killed": killed, **outcome(folder)}
    shutil.rmtree(folder)
    return found


def outcome(folder: pathlib.Path) -> dict[str, object]:
    """What the journal and the outside ledger say in the end."""
    journal = patiently(lambda: journal_of(folder))
    rows = patiently(journal.runs)
    problems = patiently(journal.check_integrity)
    told = [patiently(lambda row=row: journal.read(row.id)) for row in rows]  # type: ignore[misc]
    journal.close()
    unknown = [r for records in told for r in records if getattr(r.event, "status", "") == "unknown"]
    db = ledger(folder)
    return {
        "runs": len(rows),
        "statuses": [row.status for row in rows],
        "problems": problems,
        "unapproved": sum(map(unapproved, told)),
        "keyed": sorted(a for (a,) in db.execute("SELECT amount FROM keyed")),
        "unkeyed": sorted(a for (a,) in db.execute("SELECT amount FROM unkeyed")),
        "told_unknown": len(unknown),
    }


async def insisting(ask: Callable[[], Awaitable[object]]) -> None:
    """Waits for `ask` once the journal's server answers."""
    while True:
        try:
            await ask()
            return
        except JournalUnavailable as error:
            if not error.passing:
                raise
            await asyncio.sleep(0.05)


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` gives, once the journal's server answers."""
    while True:
        try:
            return ask()
        except JournalUnavailable as error:
            if not error.passing:
                raise
            time.sleep(0.05)


def main(root: pathlib.Path) -> None:
    whole = root / "whole"
    whole.mkdir()
    commits = child(whole, 0, "before", fresh=True)
    print(json.dumps({"commits": commits}), flush=True)
    for number in range(1, commits + 1):
        for when in ("before", "after"):
            again_at = 1 + number % 4 if when == "after" else 0
            print(json.dumps(case(root / f"{number}-{when}", number, when, again_at)), flush=True)


def main_random(root: pathlib.Path, cases: int, seed: int) -> None:
    (root / "whole").mkdir()
    begun_s = time.monotonic()
    commits = child(root / "whole", 0, "before", fresh=True)
    whole_s = time.monotonic() - begun_s
    print(json.dumps({"commits": commits, "whole_s": whole_s}), flush=True)
    dice = random.Random(seed)
    for number in range(cases):
        print(json.dumps(random_case(root / f"{number}", dice, whole_s)), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main_random(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(pathlib.Path(sys.argv[1]))
