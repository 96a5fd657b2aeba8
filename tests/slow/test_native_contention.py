"""Another program on one of the cores: what a generation loses, and how soon it has the core back."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from native_support import HERE
from pentad.execution.native.runner import NativeRunner
from pentad.model.loading import open_model
from ragged_batches import ragged, whole

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HERE, reason="no native kernels are built")]

ROUNDS = 5
CALM_S, BUSY_S, AFTER_S = 2.0, 5.0, 5.0
WINDOW_S = 0.25
PROMPT_TOKENS = 64
LOSS, RECOVERY_S, RECOVERED = 0.45, 2.0, 0.9


@contextlib.contextmanager
def busy_program() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def recovery_s(ends_s: list[float], begin_s: float, usual: float) -> float:
    """When, from `begin_s` on, the rate is back for good: every later window reaches `RECOVERED` of it."""
    windows = range(int((ends_s[-1] - begin_s) / WINDOW_S))
    counts = [
        sum(begin_s + i * WINDOW_S < end_s <= begin_s + (i + 1) * WINDOW_S for end_s in ends_s)
        for i in windows
    ]
    slow = [i for i in windows if counts[i] / WINDOW_S < RECOVERED * usual]
    return (slow[-1] + 1) * WINDOW_S if slow else 0.0


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core cannot be shared out")
def test_a_busy_program_costs_less_than_half_and_its_core_is_taken_back_in_two_seconds(
    smollm2_path: pathlib.Path, record_property: Callable[[str, object], None]
) -> None:
    """Decoding of one sequence, with the threads that the runner chooses itself."""
    files = open_model(smollm2_path)
    runner = NativeRunner.load(files.spec, files.weights, num_blocks=16)
    prompt = list(range(100, 100 + PROMPT_TOKENS))
    runner.logits(whole(prompt, rows=[]))
    # The same token again and again, so that every step costs the same.
    step = ragged([([5], PROMPT_TOKENS, range(PROMPT_TOKENS // 16 + 1))])

    def steps(seconds: float) -> list[float]:
        """When each step ended."""
        ends_s = [time.monotonic()]
        until_s = ends_s[0] + seconds
        while ends_s[-1] < until_s:
            runner.logits(step)
            ends_s.append(time.monotonic())
        return ends_s

    def rate(ends_s: list[float]) -> float:
        return (len(ends_s) - 1) / (ends_s[-1] - ends_s[0])

    steps(CALM_S)
    losses, settled, recoveries = [], [], []
    print()
    for _ in range(ROUNDS):
        usual = rate(steps(CALM_S))
        with busy_program():
            held = steps(BUSY_S)
        after = steps(AFTER_S)
        losses.append(1 - rate(held) / usual)
        settled.append(1 - rate([end_s for end_s in held if end_s > held[0] + 1]) / usual)
        recoveries.append(recovery_s(after, after[0], usual))
        slowest = max(b - a for a, b in itertools.pairwise(held))
        print(
            f"  {usual:.0f} tokens/s; with a busy program {losses[-1]:.0%} less, {settled[-1]:.0%} from one "
            f"second on, slowest step {slowest * 1e3:.0f} ms; back after {recoveries[-1]:.2f} s"
        )
    runner.close()
    found = {"loss": losses, "loss_settled": settled, "recovery_s": recoveries}
    for name, values in found.items():
        record_property(name, {"median": round(statistics.median(values), 3), "rounds": values})
    assert statistics.median(losses) <= LOSS
    assert statistics.median(recoveries) <= RECOVERY_S
