"""Kills a process at random points of a run with three sub-runs and a pending approval, and prints each case.

Run as a program by tests/slow/test_agent_kill_subruns.py. Every case is a child process that really dies.

    python sub_run_kill_drill.py FOLDER CASES SEED     one JSON line per case

With DRILL_POSTGRES the journals lie in that server; see agent_kill_drill.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from agent_kill_drill import child, insisting, journal_of, ledger, patiently, tools, unapproved

from pentad.agent.coordination import supervisor  # noqa: F401  (imported before the forks)
from pentad.agent.events import Record
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.state import RunState, fold
from pentad.agent.tools.base import Toolbox
from pentad.choice import Choice
from pentad.errors import Conflict, NotFound
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import Item, ScriptedBackend
from pentad.types import Budget, Request, ToolCall

FREE = Choice(name="react", options={"max_plan": 0})
LOOK_S = 0.005


def call(name: str, ident: str, **arguments: object) -> ToolCall:
    return ToolCall(id=ident, name=name, arguments=json.dumps(arguments))


def agent(name: str, **fields: object) -> AgentSpec:
    made = {"name": name, "instructions": f"I am {name}.", "planner": FREE, "tools": ("pay", "post", "look")}
    return AgentSpec(**{**made, **fields})  # type: ignore[arg-type]


LEAD = agent(
    "lead",
    ask=("pay",),
    coordinator=Choice(name="supervisor"),
    agents={"ann": agent("ann", ask=("pay",)), "bob": agent("bob"), "cid": agent("cid")},
    budget=Budget(tokens=400_000, tool_calls=60, cost=1.0),
)
SCRIPT: dict[str, list[list[Item]]] = {
    "lead": [
        [
            call("delegate", "a", member="ann", task="one"),
            call("delegate", "b", member="bob", task="two"),
            call("delegate", "z", member="cid", task="three"),
        ],
        [call("pay", "c", amount=1), call("post", "d", amount=2)],
        ["all done"],
    ],
    "ann": [[call("pay", "e", amount=10)], [call("post", "f", amount=11)], ["ann is done"]],
    "bob": [
        [call("post", "g", amount=20), call("pay", "h", amount=21)],
        [call("look", "i", amount=22)],
        [call("pay", "j", amount=23)],
        ["bob is done"],
    ],
    "cid": [
        [call("pay", "k", amount=30), call("post", "l", amount=31)],
        [call("post", "m", amount=32), call("pay", "n", amount=33), call("pay", "o", amount=34)],
        ["cid is done"],
    ],
}


def model(request: Request) -> Sequence[Item]:
    """The next line of the agent that asks."""
    messages = request.messages or ()
    system = next(m.content for m in messages if m.role == "system")
    name = next(name for name in SCRIPT if f"I am {name}." in system)
    return SCRIPT[name][sum(m.role == "assistant" for m in messages)]


async def work(folder: pathlib.Path, kill_at: int, when: str, *, fresh: bool) -> int:
    """Starts or resumes the run and works until its end; every question is approved, at the lead."""
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
        await insisting(lambda: runtime.start(LEAD, "do it"))
    else:
        await insisting(runtime.resume_all)

    async def attend(run_id: str) -> None:
        while not runtime.show(run_id).ended:
            await asyncio.sleep(LOOK_S)
            for _, asked in runtime.pending(run_id):
                # It may have been answered before the process died, or the run may have just ended.
                with contextlib.suppress(Conflict, NotFound):
                    await runtime.answer(run_id, asked.approval_id, approved=True)

    for row in [row for row in patiently(runtime.list) if row.parent is None]:
        await insisting(functools.partial(attend, row.id))
    await runtime.close()
    return commits


def random_case(folder: pathlib.Path, dice: random.Random, commits: int, whole_s: float) -> dict[str, object]:
    """Killed at a random commit or instant, up to twice more while gone on with, then left to finish."""
    folder.mkdir()
    at, when = dice.randint(1, commits), dice.choice(("before", "after"))
    after_s = dice.uniform(0.1, 1.0) * whole_s
    if dice.random() < 0.5:
        killed = int(child(folder, at, when, fresh=True, task=work) == -1)
    else:
        killed = int(child(folder, 0, "", fresh=True, after_s=after_s, task=work) == -1)
    for _ in range(dice.randrange(3)):
        killed += child(folder, 0, "", fresh=False, after_s=dice.uniform(0, whole_s), task=work) == -1
    child(folder, 0, "", fresh=False, task=work)
    found = {"at": at, "when": when, "after_s": round(after_s, 4), "killed": killed, **outcome(folder)}
    shutil.rmtree(folder)
    return found


def outcome(folder: pathlib.Path) -> dict[str, object]:
    """What the journal and the outside ledger say in the end."""
    journal = patiently(lambda: journal_of(folder))
    records = patiently(lambda: {row.id: journal.read(row.id) for row in journal.runs()})
    problems = patiently(journal.check_integrity)
    journal.close()
    db = ledger(folder)
    unknown = [
        record
        for each in records.values()
        for record in each
        if record.kind == "tool_returned" and getattr(record.event, "status", "") == "unknown"
    ]
    return {
        "statuses": sorted(fold(each).status for each in records.values()),
        "problems": problems,
        "unapproved": sum(unapproved(each) for each in records.values() if _name(each) in ("lead", "ann")),
        "keyed": sorted(a for (a,) in db.execute("SELECT amount FROM keyed")),
        "unkeyed": sorted(a for (a,) in db.execute("SELECT amount FROM unkeyed")),
        "told_unknown": len(unknown),
        "resumed": sum(record.kind == "run_resumed" for each in records.values() for record in each),
        "waited": any(record.kind == "sub_run_changed" for each in records.values() for record in each),
        "budgets": [_mismatch(each, records) for each in records.values() if _mismatch(each, records)],
    }


def _name(records: Sequence[Record]) -> str:
    return fold(records).spec.name


def _mismatch(records: Sequence[Record], all_of: dict[str, list[Record]]) -> str:
    """What does not add up in the budget of a run: its own calls and its sub-runs are all that it used."""
    state = fold(records)
    own = fold([r for r in records if not r.kind.startswith("sub_run_")]).ledger.committed
    inner: list[RunState] = [fold(all_of[child.run_id]) for child in state.children.values()]
    parts = [own, *(each.ledger.committed for each in inner)]
    for name in ("tokens", "tool_calls"):
        used = getattr(state.ledger.used, name)
        if used != sum(getattr(part, name) for part in parts):
            return f"{state.run_id} used {used} {name}, its parts {[getattr(p, name) for p in parts]}"
        limit = getattr(state.ledger.budget, name)
        if limit is None or used > limit:
            return f"{state.run_id} used {used} of {limit} {name}"
    if state.ledger.held or state.ledger.overdrawn != replace(state.ledger.overdrawn, tokens=0, tool_calls=0):
        return f"{state.run_id} holds {state.ledger.held}, overdrawn {state.ledger.overdrawn}"
    return ""


def main(root: pathlib.Path, cases: int, seed: int) -> None:
    (root / "whole").mkdir()
    begun_s = time.monotonic()
    commits = child(root / "whole", 0, "before", fresh=True, task=work)
    whole_s = time.monotonic() - begun_s
    print(json.dumps({"commits": commits, "whole_s": whole_s, **outcome(root / "whole")}), flush=True)
    dice = random.Random(seed)
    for number in range(cases):
        print(json.dumps(random_case(root / f"{number}", dice, commits, whole_s)), flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
