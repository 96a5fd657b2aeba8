"""`pentad bench serve` and `agents`: rounds of one load on one or several servers, in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pentad.application.bench import facts
from pentad.application.bench.answers import Slo, summary
from pentad.application.bench.servers import Server
from pentad.errors import BackendFailed

Runs = Callable[[int], list[dict[str, Any]]]
"""The load of one round, by its number: different text each time, so that no cache knows it."""


def play(
    server: Server, runs: Sequence[dict[str, Any]], *, concurrency: int, deadline_s: float
) -> dict[str, Any]:
    """Plays the runs from a process of its own and returns what it wrote.

    Raises:
        BackendFailed: the client failed, or no request was answered.
    """
    plan = server.plan(runs, concurrency=concurrency, deadline_s=deadline_s)
    return play_plan("client", server, plan)


def play_plan(client: str, server: Server, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a client program of this folder met when it played a plan, in a process of its own.

    Raises:
        BackendFailed: the client failed, or no request was answered.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"pentad.application.bench.{client}"],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no message"]
        raise BackendFailed(f"the load on {server.name!r} failed: {words[-1][:300]}")
    found: dict[str, Any] = json.loads(done.stdout)
    failed = [answer for answer in found["answers"] if "error" in answer]
    if failed and len(failed) == len(found["answers"]):
        raise BackendFailed(f"{server.name!r} answered no request: {failed[0]['error'][-200:]!r}")
    return found


def measure(
    servers: Sequence[Server],
    load: Runs,
    *,
    concurrency: int,
    rounds: int,
    slo: Slo,
    deadline_s: float,
    between: Callable[[], None],
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Every round: the load on each server, then `between`. One round before them is not counted.

    Returns one result per server: medians over the rounds, and the rounds.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in servers]
    for number in range(rounds + 1):
        for server, rows in zip(servers, found, strict=True):
            tell(f"{concurrency} at once, round {number} of {rounds}: {server.name}")
            cpu_s = facts.cpu_seconds(server.pid) if server.pid else None
            played = play(server, load(number), concurrency=concurrency, deadline_s=deadline_s)
            row = summary(played, slo, concurrency)
            if server.pid and cpu_s is not None and row["seconds"]:
                used_s = facts.cpu_seconds(server.pid) - cpu_s
                row["server_cpu_cores"] = round(used_s / row["seconds"], 3)
            if number:
                rows.append(row)
        if number:
            between()
    return [
        {"server": server.name, "concurrency": concurrency, **medians(rows), "rounds": rows}
        | {"peak_rss_bytes": server.peak_rss_bytes()}
        for server, rows in zip(servers, found, strict=True)
    ]


def medians(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number over the rounds, nested ones too."""
    found: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(first, dict):
            found[name] = medians(values)
        else:
            numbers = [value for value in values if value is not None]
            found[name] = statistics.median(numbers) if numbers else None
    return found
