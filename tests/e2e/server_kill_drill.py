"""Kills a whole gateway at every journal write of a run, starts it again, prints what came of it.

Run as a program by test_server_kill.py. Every server is a real process that listens on loopback,
takes the run over HTTP and dies of SIGKILL; children are forked, so that imports are paid once.

    python server_kill_drill.py FOLDER     one JSON line per case
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import sys
import time

import agent_kill_drill
import httpx2
import jsonschema  # noqa: F401  (imported before the forks, as pentad imports it on use)
from agent_kill_drill import ledger, model, tools

from pentad.agent.journal import Journal
from pentad.agent.planning import react  # noqa: F401
from pentad.agent.runtime import AgentRuntime
from pentad.agent.tools.base import Toolbox
from pentad.application.gateway import GatewaySettings, create_app, make_server
from pentad.application.services import Services
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend

ENDED_WITHIN_S = 30.0
SPEC = dataclasses.replace(agent_kill_drill.SPEC, ask=())
"""Nobody is there to approve anything."""


async def serve(folder: pathlib.Path, listener: socket.socket, kill_at: int, when: str) -> None:
    """Serves until killed: by itself at the `kill_at`-th commit, or by the driver."""
    commits = 0

    def on_commit(moment: str) -> None:
        nonlocal commits
        commits += moment == "before"
        (folder / "commits").write_text(str(commits))
        if commits == kill_at and moment == when:
            os.kill(os.getpid(), signal.SIGKILL)

    models = ModelService({"m": ScriptedBackend([model], repeat=True)}, router=Fixed())
    journal = Journal(folder / "journal.db", on_commit=on_commit)
    agents = AgentRuntime(models, journal, agents={SPEC.name: SPEC}, toolbox=Toolbox(tools(folder)))
    await agents.resume_all()
    settings = GatewaySettings(port=0)
    app = create_app(Services(models=models, agents=agents), settings)
    await make_server(app, settings).serve(sockets=[listener])


def start(folder: pathlib.Path, kill_at: int, when: str) -> tuple[int, str]:
    """A forked server and its address; it accepts from now on, even before it answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(serve(folder, listener, kill_at, when))
        finally:
            os._exit(1)
    listener.close()
    return pid, url


def statuses(url: str) -> list[str]:
    """The status of every run once none is at work."""
    deadline = time.monotonic() + ENDED_WITHIN_S
    while True:
        runs = httpx2.get(f"{url}/v1/runs", timeout=ENDED_WITHIN_S).json()["data"]
        found = [run["status"] for run in runs]
        if not {"running", "stalled"} & set(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def case(folder: pathlib.Path, kill_at: int, when: str) -> dict[str, object]:
    """One drill: a run is asked for, its server dies, another one takes over."""
    folder.mkdir()
    pid, url = start(folder, kill_at, when)
    with contextlib.suppress(httpx2.TransportError):  # killed before it could answer
        httpx2.post(f"{url}/v1/runs", json={"agent": SPEC.name, "goal": "do it"}, timeout=ENDED_WITHIN_S)
    if not kill_at:
        found = statuses(url)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    commits = int((folder / "commits").read_text())
    if kill_at:
        pid, url = start(folder, 0, when)
        found = statuses(url)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    db = ledger(folder)
    return {
        "kill_at": kill_at,
        "when": when,
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "commits": commits,
        "statuses": found,
        "keyed": sorted(a for (a,) in db.execute("SELECT amount FROM keyed")),
        "unkeyed": sorted(a for (a,) in db.execute("SELECT amount FROM unkeyed")),
    }


def main(root: pathlib.Path) -> None:
    whole = case(root / "whole", 0, "before")
    print(json.dumps(whole), flush=True)
    for number in range(1, int(str(whole["commits"])) + 1):
        for when in ("before", "after"):
            print(json.dumps(case(root / f"{number}-{when}", number, when)), flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
