"""What a decode step costs beside the device: the real engine and scheduler on a runner that does nothing.

    python benchmarks/engine_overhead.py [--steps N]

Prints a table and one JSON line. The figure to keep: at batch 8 the whole engine should stay under
3% of a decode step, which is 243 microseconds of the 8.1 ms that native kernels need for SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.engine import Engine
from pentad.execution.request import TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.registry import load
from pentad.testing.runners import toy_spec
from pentad.types import Sampling

PROMPT_TOKENS = 500


class IdleRunner:
    """Answers every row with the same token, at once."""

    def __init__(self) -> None:
        self.spec = toy_spec(vocab_size=49_152, context_length=8_192)
        self.block_size = 16
        self.num_blocks = 16_384
        self.block_bytes = 1
        self._drawn = [Drawn(token=5)] * 64

    def step(self, batch: RaggedBatch, rows: Sequence[SampleRow]) -> list[Drawn]:  # noqa: ARG002
        return self._drawn[: len(rows)]

    def logits(self, batch: RaggedBatch) -> npt.NDArray[np.float32]:
        raise AssertionError(f"nothing asks for the logits of {len(batch.starts) - 1} sequences")

    def copy_block(self, source: int, target: int) -> None:
        raise AssertionError(f"nothing is shared here, not even {source} with {target}")

    def copy_slots(self, pairs: Sequence[tuple[int, int]]) -> None:
        raise AssertionError(f"nothing is drafted here, yet {len(pairs)} slots shall move")

    def close(self) -> None:
        pass


def measure(batch: int, sampling: Sampling, scheduler: str, steps: int) -> dict[str, float]:
    """Microseconds per decode step of `batch` sequences: median of all, and the scheduler's share."""
    engine = Engine(IdleRunner(), load("scheduler", scheduler)(), limits=EngineLimits())
    for i in range(batch):
        engine.add(
            TokenRequest(
                id=f"r{i}",
                prompt=tuple(range(i, i + PROMPT_TOKENS)),
                sampling=sampling,
                max_tokens=steps + 200,
                seed=i,
            )
        )
    while engine.stats()["generation_tokens_total"] < 4 * batch:
        engine.step()
    before = engine.stats()["scheduler_seconds_total"]
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - start)
    scheduler_us = (engine.stats()["scheduler_seconds_total"] - before) / steps * 1e6
    return {
        "median_us": round(statistics.median(times) * 1e6, 1),
        "p99_us": round(statistics.quantiles(times, n=100)[98] * 1e6, 1),
        "scheduler_us": round(scheduler_us, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="steps per measurement")
    steps = parser.parse_args().steps
    kinds = {"greedy": Sampling(temperature=0), "sampled": Sampling(temperature=0.7, top_p=0.9)}
    results = []
    print(
        f"{'scheduler':<10} {'sampling':<9} {'batch':>5} {'median us':>10} {'p99 us':>8} {'scheduler us':>13}"
    )
    for scheduler in ("sarathi", "fcfs"):
        for kind, sampling in kinds.items():
            for batch in (1, 8, 32):
                figures = measure(batch, sampling, scheduler, steps)
                results.append({"scheduler": scheduler, "sampling": kind, "batch": batch, **figures})
                print(
                    f"{scheduler:<10} {kind:<9} {batch:>5} {figures['median_us']:>10} "
                    f"{figures['p99_us']:>8} {figures['scheduler_us']:>13}"
                )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    print(
        json.dumps(
            {
                "benchmark": "engine_overhead",
                "commit": commit.stdout.strip(),
                "machine": f"{platform.machine()}, Python {platform.python_version()}",
                "ceiling": "3% of a decode step at batch 8: 243 us at 8.1 ms",
                "results": results,
            }
        )
    )


if __name__ == "__main__":
    main()
