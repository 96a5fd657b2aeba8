"""Schedulers on a real model: what chunked prefills and preemption do, and that outputs stay."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from resource_live import live, open_runner

from evidence.plugin import Measure
from pentad.execution.scheduling import BatchScheduler, EngineLimits
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.simulator import RequestRecord, TraceItem

pytestmark = pytest.mark.slow

Replay = Callable[[BatchScheduler, EngineLimits, list[TraceItem]], list[RequestRecord]]
SAME_STEP_S = 0.004
"""Readers get the tokens of one step within this time; steps take longer."""


@pytest.fixture
def replay(smollm2_path: pathlib.Path) -> Replay:
    """Each replay gets a fresh runner in float32, where batching does not change what is drawn."""

    def run(scheduler: BatchScheduler, limits: EngineLimits, trace: list[TraceItem]) -> list[RequestRecord]:
        return live(open_runner(smollm2_path, num_blocks=1200, dtype="float32"), scheduler, limits, trace)

    return run


def p99_gap_s(records: list[RequestRecord]) -> float:
    return float(np.quantile([gap for record in records for gap in record.gaps_s], 0.99))


def step_ends(records: list[RequestRecord]) -> list[float]:
    """When steps ended: the first of the instants at which their tokens reached the readers."""
    ends: list[float] = []
    for at in sorted(at for record in records for at in record.token_times_s):
        if not ends or at - ends[-1] > SAME_STEP_S:
            ends.append(at)
    return ends


@pytest.mark.row("par-sarathi", "effect", claims=(1, 2))
def test_long_prompts_stall_decodes_at_least_three_times_less_than_prefill_first(
    replay: Replay, measured: Measure
) -> None:
    chats = [TraceItem(id=f"chat{i}", prompt_tokens=24, output_tokens=120) for i in range(4)]
    documents = [
        TraceItem(id=f"doc{i}", arrival_s=1.0 + 2.5 * i, prompt_tokens=1400, output_tokens=8)
        for i in range(4)
    ]
    limits = EngineLimits(max_batch_tokens=2048, max_sequences=8, max_waiting=16)
    first = replay(Fcfs(), limits, [*chats, *documents])
    second = replay(Sarathi(token_budget=64), limits, [*chats, *documents])
    assert [record.tokens for record in second] == [record.tokens for record in first]
    stalled, smooth = p99_gap_s(first), p99_gap_s(second)
    print(
        f"\np99 gap: prefill first {stalled * 1e3:.0f} ms, sarathi {smooth * 1e3:.0f} ms:",
        f"{stalled / smooth:.1f}x lower",
    )
    measured("p99 gap of prefill first over sarathi", stalled / smooth, at_least=3, unit="x")


@pytest.mark.row("ag-preempt", "effect", claims=(1, 2))
def test_an_urgent_request_starts_within_one_decode_step_and_the_displaced_answer_is_the_same(
    replay: Replay, measured: Measure
) -> None:
    limits = EngineLimits(max_batch_tokens=256, max_sequences=2, max_waiting=16)
    busy = [TraceItem(id=f"b{i}", prompt_tokens=40, output_tokens=100, priority=3) for i in range(2)]
    urgent = TraceItem(id="urgent", arrival_s=1.5, prompt_tokens=30, output_tokens=5, priority=0)
    calm = replay(Sarathi(), limits, busy)
    disturbed = replay(Sarathi(), limits, [*busy, urgent])
    assert sum(record.preemptions for record in disturbed) == 1
    assert [record.tokens for record in disturbed[:2]] == [record.tokens for record in calm]
    record = disturbed[-1]
    ends = step_ends(disturbed)
    first = max(end for end in ends if end <= record.token_times_s[0])
    between = [end for end in ends if record.arrived_s < end < first]
    print(
        f"\nurgent: first token after {record.ttft_s * 1e3:.0f} ms, {len(between)} steps ended before its own"
    )
    # Only the step in progress may come first.
    measured("steps that end before the urgent one's", len(between), at_most=1)
