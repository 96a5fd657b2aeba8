"""Live against simulated: the same trace through the real engine on SmolLM2 and on its profile."""

from __future__ import annotations

import itertools
import pathlib
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
from resource_live import azure_trace, live, open_runner, this_machine

from pentad.execution.scheduling import EngineLimits
from pentad.resource.calibration import StepLog, fit, time_steps
from pentad.resource.cost import StepCost
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.resource.simulator import (
    RequestRecord,
    SimulationOptions,
    TraceItem,
    read_trace,
    rescaled,
    simulate,
)

pytestmark = pytest.mark.slow

REQUESTS = 60
OTHERS = 20
"""Requests of each replay that calibrates."""
LOAD = 0.4
"""Share of the time that the engine is meant to be busy."""
MOST_FOREIGN = 0.03
"""Share of the machine that other programs may take: more, and the comparison means nothing."""
BLOCKS = 1024
"""Fewer than the replays fill, so that all memory has been touched before the one that counts."""
LIMITS = EngineLimits(max_batch_tokens=256, max_sequences=16, max_waiting=REQUESTS)


class Kept(StepLog):
    """Leaves the runner open for the next replay."""

    def close(self) -> None:
        pass


class OtherWork:
    """Counts the processor time that goes elsewhere from now on."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        return time.monotonic(), sum(machine[:8]) - idle, own.user + own.system

    def share(self) -> float:
        """Of all cores' time since then."""
        seconds, busy, own = (now - then for now, then in zip(self._now(), self._start, strict=True))
        return max(0.0, busy - own) / (seconds * psutil.cpu_count())


def medians(records: list[RequestRecord]) -> dict[str, float]:
    return {
        "ttft_s": float(np.median([record.ttft_s for record in records])),
        "inter_token_s": float(np.median([gap for record in records for gap in record.gaps_s])),
        "completion_s": float(np.median([record.completion_s for record in records])),
    }


def fitting(path: pathlib.Path, most_tokens: int, counts: tuple[int, ...]) -> list[list[TraceItem]]:
    """The trace's first conversations that fit the context, in parts."""
    items = read_trace(path, limit=4 * sum(counts))
    kept = (item for item in items if item.prompt_tokens + item.output_tokens <= most_tokens)
    return [list(itertools.islice(kept, count)) for count in counts]


def loaded(items: list[TraceItem], cost: StepCost) -> tuple[TraceItem, ...]:
    """The conversations at the rate that keeps the engine busy for `LOAD` of the time."""
    options = SimulationOptions(limits=LIMITS, kv_blocks=BLOCKS)
    busy_s = simulate(items, cost.spec, cost.profile, Sarathi(), options=options, cost=cost).busy_s
    return rescaled(items, LOAD * (items[-1].arrival_s - items[0].arrival_s) / busy_s)


def test_medians_of_a_60_request_replay_are_within_15_percent_of_its_simulation(
    smollm2_path: pathlib.Path,
) -> None:
    """The simulation is calibrated by replays of other requests, before and after."""
    device = this_machine()
    runner = open_runner(smollm2_path, num_blocks=BLOCKS)
    plain = StepCost(profile=device, spec=runner.spec, form=runner.form)
    calibrated = fit(plain, time_steps(runner))
    asked, first, last = fitting(azure_trace(), plain.spec.context_length, (REQUESTS, OTHERS, OTHERS))

    def replay(items: tuple[TraceItem, ...]) -> tuple[list[RequestRecord], StepLog]:
        log = Kept(runner, time.monotonic)
        return live(log, Sarathi(), LIMITS, items), log

    others = OtherWork()
    _, before = replay(loaded(first, calibrated))
    calibrated = fit(plain, before.measured())
    trace = loaded(asked, calibrated)
    real, during = replay(trace)
    _, after = replay(loaded(last, calibrated))
    foreign = others.share()
    runner.close()
    assert [len(record.tokens) for record in real] == [item.output_tokens for item in trace]
    calibrated = fit(plain, before.measured() + after.measured())
    print(f"\n{calibrated.calibration}")
    for name, log in (("before", before), ("replay", during), ("after", after)):
        pairs = [(seconds, calibrated.seconds(shape)) for shape, seconds in log.measured()]
        real_s, predicted_s = (sum(values) for values in zip(*pairs, strict=True))
        median = np.median([seconds / predicted for seconds, predicted in pairs])
        held_up = sum(seconds > 2.5 * predicted for seconds, predicted in pairs)
        print(
            f"{name}: {len(pairs)} steps took {real_s:.1f} s, predicted {predicted_s:.1f} s, "
            f"median ratio {median:.2f}, {held_up} were held up"
        )
    measured = medians(real)
    ratios = {}
    for name, cost in (("profile alone", plain), ("calibrated", calibrated)):
        options = SimulationOptions(limits=LIMITS, kv_blocks=BLOCKS, form=cost.form)
        report = simulate(trace, cost.spec, device, Sarathi(), options=options, cost=cost)
        predicted = medians(list(report.records))
        ratios[name] = {key: predicted[key] / measured[key] for key in measured}
        print(f"{name}: utilisation {report.utilisation:.0%}")
        for key in measured:
            print(
                f"  {key:14} live {measured[key]:.4f} simulated {predicted[key]:.4f}",
                f"({ratios[name][key] - 1:+.1%})",
            )
    print(f"other programs took {foreign:.1%} of the machine")
    if foreign > MOST_FOREIGN:
        pytest.skip(f"other programs took {foreign:.0%} of the machine; it must be idle to compare")
    assert all(abs(ratio - 1) <= 0.15 for ratio in ratios["calibrated"].values()), ratios


def test_a_replay_without_pressure_keeps_the_trace_as_it_is(smollm2_path: pathlib.Path) -> None:
    runner = open_runner(smollm2_path, num_blocks=64)
    trace = tuple(
        TraceItem(id=f"{i}", arrival_s=0.05 * i, prompt_tokens=20, output_tokens=5) for i in range(3)
    )
    records = live(runner, Sarathi(), replace(LIMITS, max_sequences=2), trace)
    assert [len(record.tokens) for record in records] == [5, 5, 5]
    for record, item in zip(records, trace, strict=True):
        assert record.arrived_s >= item.arrival_s
        assert record.token_times_s == sorted(record.token_times_s)
        assert record.finished_s is not None
