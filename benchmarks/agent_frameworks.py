"""What an agent framework itself costs: one scripted agent in ours and in others, each in its own process.

    scripts/peers agents
    python benchmarks/agent_frameworks.py [--steps N] [--rounds N] [--only NAME ...]

The agent makes N steps with one call of a trivial tool each and then answers; its model is a double in each
framework's own model interface, so that all that is measured is the framework. Frameworks take turns, and
each turn is a fresh process: import, one run to warm up, then runs that are timed. Prints a table of medians
and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).parent
PEERS = pathlib.Path(os.environ.get("PENTAD_PEERS", pathlib.Path.home() / ".cache" / "pentad-peers"))
CASES = (
    "pentad",
    "langgraph-sqlite",
    "langgraph",
    "pydantic-ai",
    "openai-agents",
    "smolagents",
)
"""Pentad always journals; of the others langgraph can persist, with its SQLite checkpointer."""
FIGURES = ("cpu_ms", "wall_ms", "idle_mb", "growth_mb", "peak_mb", "rss_mb", "import_s")


def once(case: str, steps: int, runs: int) -> dict[str, float]:
    """The figures of one process."""
    peer = PEERS / "agents" / "bin" / "python"
    python = sys.executable if case == "pentad" else str(peer)
    words = [python, str(HERE / "agent_framework_peer.py"), case, str(steps), str(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "none"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def fsync_ms(folder: pathlib.Path, times: int = 50) -> float:
    """What forcing a page to this disk takes by itself, the median."""
    path, took = folder / f".fsync-{os.getpid()}", []
    with path.open("wb") as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(1e3 * (time.perf_counter() - began))
    path.unlink()
    return statistics.median(took)


def versions() -> dict[str, str]:
    """Of the peers, as installed."""
    names = ("langgraph", "langgraph-checkpoint-sqlite", "pydantic-ai-slim", "openai-agents", "smolagents")
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    peer = PEERS / "agents" / "bin" / "python"
    found: dict[str, str] = json.loads(subprocess.check_output([peer, "-c", code], text=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=CASES, default=CASES)
    given = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {case: [] for case in given.only}
    for _ in range(given.rounds):
        for case in given.only:
            rounds[case].append(once(case, given.steps, given.runs))
    medians = {
        case: {name: round(statistics.median(one[name] for one in found), 3) for name in FIGURES}
        for case, found in rounds.items()
    }
    print(f"{'':18}" + "".join(f"{name:>11}" for name in FIGURES))
    for case, figures in medians.items():
        print(f"{case:18}" + "".join(f"{figures[name]:>11.2f}" for name in FIGURES))
    record: dict[str, Any] = {
        "at_s": round(time.time()),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "steps": given.steps,
        "runs": given.runs,
        "rounds": given.rounds,
        "fsync_ms": round(fsync_ms(pathlib.Path.home()), 3),
        "versions": versions(),
        "medians": medians,
        "cpu_ms_of_each_round": {
            case: [round(r["cpu_ms"], 3) for r in found] for case, found in rounds.items()
        },
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
