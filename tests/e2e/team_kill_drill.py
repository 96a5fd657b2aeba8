"""Kills a process at commits of a team run under every coordinator without a lead, and prints each case.

Run as a program by test_team_kill.py. Every case is a child process that really dies of SIGKILL.

    python team_kill_drill.py FOLDER      one JSON line per case
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import signal
import sys
from collections.abc import Sequence

from agent_kill_drill import child, ledger, tools

from pentad import registry
from pentad.agent.coordination.base import MEMBERS, coordinator_for
from pentad.agent.coordination.leaderless import Leaderless
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.state import fold
from pentad.agent.tools.base import Toolbox
from pentad.choice import Choice, build
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import Item, ScriptedBackend
from pentad.types import Budget, Request, ToolCall

FREE = Choice(name="react", options={"max_plan": 0})
GOAL = "Furnish the hall.\n- place a lamp\n- place a chair\n- place a table"


def agent(name: str, **fields: object) -> AgentSpec:
    made = {"name": name, "instructions": f"I am {name}.", "planner": FREE, "tools": ("pay", "post")}
    return AgentSpec(**{**made, **fields})  # type: ignore[arg-type]


def lead(coordinator: str) -> AgentSpec:
    members = {name: agent(name, description=f"places a {thing}") for name, thing in _THINGS}
    budget = Budget(tokens=4_000_000, tool_calls=4000)
    chosen = Choice(name=coordinator)
    return agent("lead", tools=(), coordinator=chosen, agents=members, budget=budget, max_steps=16)


_THINGS = (("ann", "lamp"), ("bob", "chair"), ("cid", "table"))


def model(request: Request) -> Sequence[Item]:
    """Pays once, posts once, then answers in a way that every coordinator can read."""
    messages = request.messages or ()
    done = sum(m.role == "assistant" for m in messages)
    if done == 0:
        return [ToolCall(id="a", name="pay", arguments='{"amount": 1}')]
    if done == 1:
        return [ToolCall(id="b", name="post", arguments='{"amount": 2}')]
    return ["1: 0.9\n2: 0.8\nconfidence: 0.9\nverdict: correct\nanswer: 7"]


async def work(coordinator: str, folder: pathlib.Path, kill_at: int, when: str, *, fresh: bool) -> int:
    """Starts or resumes the run and works until its end, or until the `kill_at`-th commit."""
    commits = 0

    def on_commit(moment: str) -> None:
        nonlocal commits
        commits += moment == "before"
        if commits == kill_at and moment == when:
            os.kill(os.getpid(), signal.SIGKILL)

    models = ModelService({"m": ScriptedBackend([model], repeat=True)}, router=Fixed())
    journal = Journal(folder / "journal.db", on_commit=on_commit)
    runtime = AgentRuntime(models, journal, toolbox=Toolbox(tools(folder)))
    if fresh:
        await runtime.start(lead(coordinator), GOAL)
    else:
        await runtime.resume_all()
    for row in [row for row in runtime.list() if row.parent is None]:
        await runtime.wait(row.id)
    await runtime.close()
    return commits


def outcome(folder: pathlib.Path) -> dict[str, object]:
    """What the journal and the outside ledger say in the end."""
    journal = Journal(folder / "journal.db")
    records = {row.id: journal.read(row.id) for row in journal.runs()}
    problems = journal.check_integrity()
    journal.close()
    states = [fold(each) for each in records.values()]
    db = ledger(folder)
    unknown = sum(
        record.kind == "tool_returned" and getattr(record.event, "status", "") == "unknown"
        for each in records.values()
        for record in each
    )
    return {
        "runs": len(states),
        "ended": all(state.ended for state in states),
        "top": [(s.status, s.answer) for s in states if s.parent is None],
        "goals": sorted(s.goal for s in states if s.parent is not None),
        "keyed": len(list(db.execute("SELECT key FROM keyed"))),
        "unkeyed": len(list(db.execute("SELECT amount FROM unkeyed"))),
        "unknown": unknown,
        "problems": problems,
        "held": [state.run_id for state in states if state.ledger.held],
    }


def main(root: pathlib.Path) -> None:
    """For each coordinator the run without a kill, and with one at a third and two thirds of it."""
    for name in registry.known("coordinator"):
        strategy = build("coordinator", Choice(name=name))
        if not isinstance(strategy, Leaderless) or MEMBERS not in strategy.needs:
            continue
        coordinator_for(lead(name))  # imported before the forks
        task = functools.partial(work, name)
        whole = root / name
        whole.mkdir()
        commits = child(whole, 0, "before", fresh=True, task=task)
        print(json.dumps({"coordinator": name, "commits": commits, **outcome(whole)}), flush=True)
        for place, when in ((commits // 3, "after"), (2 * commits // 3, "before")):
            folder = root / f"{name}-{place}"
            folder.mkdir()
            killed = child(folder, place, when, fresh=True, task=task) == -1
            child(folder, 0, "", fresh=False, task=task)
            found = {"coordinator": name, "at": place, "killed": killed, **outcome(folder)}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
