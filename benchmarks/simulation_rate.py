"""How many requests and steps of agent runs a minute of one core simulates, with the default scheduler.

    python benchmarks/simulation_rate.py [--count N] [--rounds N] [TRACE ...]

Replays a made-up load of independent requests, made-up agent runs, and the traces that are given, on a
published H100 with a Llama of 1B parameters. Times are of the processor, the report included. Prints a table
and one JSON line. Asked for: 200,000 independent requests and 50,000 steps of runs a minute.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence

import psutil

from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource import profile
from pentad.resource.simulator import SimulationOptions, TraceItem, agent_run, poisson, read_trace, simulate

DEVICE = "h100-sxm"
MODEL = uniform_spec(
    name="llama-3.2-1b",
    family="llama",
    vocab_size=128_256,
    layers=16,
    width=2048,
    heads=32,
    kv_heads=8,
    head_dim=64,
    ffn_width=8192,
    context_length=131_072,
    positions=Rope(base=500_000.0, dim=64),
)


def loads(count: int, traces: Sequence[str]) -> dict[str, tuple[TraceItem, ...]]:
    """Loads by name, each of about so many requests."""
    runs = (
        agent_run(f"a{k}", arrival_s=k / 2, steps=10, first_prompt=600, added=200, output=60, pause_s=1.0)
        for k in range(max(1, count // 10))
    )
    return {
        "independent": poisson(count, rate_per_s=20.0, prompt_tokens=(64, 1024), output_tokens=(16, 256)),
        "runs of 10 steps": tuple(item for run in runs for item in run),
    } | {path.rpartition("/")[2]: read_trace(path, limit=count) for path in traces}


def a_minute(items: tuple[TraceItem, ...]) -> float:
    """Requests of a load that a minute of the processor simulates."""
    options = SimulationOptions(limits=EngineLimits(max_waiting=len(items)), too_long="clip")
    device = profile.find(DEVICE)
    began_s = time.process_time()
    simulate(items, MODEL, device, options=options).to_dict()
    return 60 * len(items) / (time.process_time() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traces", nargs="*", metavar="TRACE", help="files that pentad simulate reads")
    parser.add_argument("--count", type=int, default=1000, help="requests of each load")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is replayed")
    asked = parser.parse_args()
    found = {
        name: [round(a_minute(items)) for _ in range(asked.rounds)]
        for name, items in loads(asked.count, asked.traces).items()
    }
    print(f"{'requests a minute of':<28} {'least':>9} {'median':>9} {'most':>9}")
    for name, rates in found.items():
        print(f"{name:<28} {min(rates):>9,} {statistics.median(rates):>9,.0f} {max(rates):>9,}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    print(
        json.dumps(
            {
                "benchmark": "simulation-rate",
                "commit": commit.stdout.strip(),
                "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, "
                f"Python {platform.python_version()}",
                "asked": "200,000 requests, 50,000 steps of runs a minute",
                "count": asked.count,
                "rounds": found,
            }
        )
    )


if __name__ == "__main__":
    main()
