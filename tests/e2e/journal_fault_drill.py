"""A server whose disk fails under a run, and then works again; prints what its clients saw.

Run as a program by test_journal_faults.py:

    python journal_fault_drill.py FOLDER full      FOLDER is a small file system, filled meanwhile
    python journal_fault_drill.py FOLDER sync      fsync fails while FOLDER/fail is there (fsync_shim.c)
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx2

from agent_support import call, spec
from gateway_support import live, model_service
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.agent.tools.base import Tool, Toolbox
from pentad.agent.tools.functions import tool
from pentad.application.services import Services
from pentad.testing.backends import ScriptedBackend

WITHIN_S = 60.0


class Fault:
    """Breaks the disk under a folder, and mends it."""

    def __init__(self, folder: pathlib.Path, kind: str) -> None:
        self._file = folder / ("ballast" if kind == "full" else "fail")
        self._kind = kind

    def begin(self) -> None:
        with self._file.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while self._kind == "full":
                file.write(bytes(4096))

    def end(self) -> None:
        self._file.unlink()


def acting(effects: list[int], fault: Fault) -> Tool:
    @tool(effects="unkeyed")
    def act() -> str:
        """Acts; the disk breaks meanwhile."""
        effects.append(1)
        fault.begin()
        return "done"

    return act


def until(found: Callable[[], Any]) -> Any:
    """What `found` returns once it is true."""
    deadline = time.monotonic() + WITHIN_S
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return value


def main(folder: pathlib.Path, kind: str) -> None:
    fault, effects = Fault(folder, kind), list[int]()
    backend = ScriptedBackend([[call("act")], ["fine"]])
    models = model_service(backend)
    runtime = AgentRuntime(
        models,
        Journal(folder / "journal.sqlite3"),
        agents={"actor": spec(name="actor", tools=("act",))},
        toolbox=Toolbox([acting(effects, fault)]),
    )
    seen: dict[str, Any] = {}
    with live(Services(models=models, agents=runtime), backend=backend) as server:
        client = httpx2.Client(base_url=server.url, timeout=WITHIN_S)

        def status() -> str:
            return str(client.get(f"/v1/runs/{run_id}").json()["status"])

        seen["ready_before"] = client.get("/readyz").status_code
        run_id = client.post("/v1/runs", json={"agent": "actor", "goal": "act"}).json()["id"]
        until(lambda: status() == "stalled")
        refused = client.post("/v1/runs", json={"agent": "actor", "goal": "another"})
        seen["refused"] = [refused.status_code, refused.json()["error"]["message"]]
        ready = client.get("/readyz")
        seen["ready_during"] = [ready.status_code, ready.json().get("reason", "")]
        seen["alive_during"] = client.get("/livez").status_code
        seen["followed"] = client.get(f"/v1/runs/{run_id}/events").text.splitlines()[-2:]
        fault.end()
        seen["status"] = until(lambda: (now := status()) not in ("running", "stalled") and now)
        seen["ready_after"] = until(lambda: client.get("/readyz").status_code == 200)
        client.close()
    seen["effects"] = len(effects)
    journal = Journal(folder / "journal.sqlite3")
    seen["problems"] = journal.check_integrity()
    seen["kinds"] = [record.kind for record in journal.read(run_id)]
    journal.close()
    print(json.dumps(seen), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
