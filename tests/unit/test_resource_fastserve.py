"""FastServe's queues: the level of a request by hand, who gives way to whom, and heavy-tailed loads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from resource_samples import TINY, measured_device
from test_resource_scheduling import Seq, preempted, running, state, work

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.execution.pace import Pace
from pentad.execution.scheduling import EngineLimits
from pentad.resource.scheduling.fastserve import FastServe
from pentad.resource.simulator import SimulationOptions, TraceItem, simulate

PACE = Pace(least_s=0.01, prompt_token_s=0.0005)
"""Twenty tokens of a prompt take the time of a step."""


def urgencies(*seqs: Seq, **options: float) -> list[float]:
    order = FastServe(quantum_steps=4, **options)._order(dataclasses.replace(state(), pace=PACE))
    return [order(seq)[0] for seq in seqs]


@pytest.mark.row("mem-fastserve", "mechanism")
class TestQueues:
    def test_a_prompt_joins_the_first_queue_whose_quantum_it_fits_in(self) -> None:
        # 80 tokens are 4 steps, the first quantum; 81 are more; 640 are 32 steps, 4 x 2^3.
        seqs = [Seq(id=str(n), num_tokens=n, arrived_s=1000.0) for n in (20, 80, 81, 160, 640, 641)]
        assert urgencies(*seqs) == [0, 0, 1, 1, 3, 4]

    def test_what_the_cache_supplies_skips_no_queue(self) -> None:
        assert urgencies(Seq(id="c", num_tokens=640, num_cached=560, arrived_s=1000.0)) == [0]

    def test_each_token_of_an_answer_moves_it_down_and_the_last_queue_holds_all_that_is_longer(self) -> None:
        answers = [
            running(str(n), 20 + n, num_generated=n, arrived_s=1000.0) for n in (3, 4, 7, 8, 15, 16, 9999)
        ]
        assert urgencies(*answers, queues=4) == [0, 1, 1, 2, 2, 3, 3]

    def test_who_is_old_for_what_it_has_had_rises_by_one_queue_with_every_doubling(self) -> None:
        def old(age_s: float) -> Seq:  # 1 step of prompt and 31 of answer are 0.32 s
            return running(f"{age_s}", 51, num_generated=31, arrived_s=1000.0 - age_s)

        assert urgencies(old(3.1), old(3.3), old(6.3), old(6.5), guard=10) == [3, 2, 2, 1]
        assert urgencies(old(900.0), guard=None) == [3]

    def test_between_two_tokens_a_new_request_takes_the_slot_of_the_one_that_has_had_most(self) -> None:
        seqs = (
            running("some", 60, num_generated=40, arrived_s=999.0),
            running("much", 220, num_generated=200, arrived_s=998.0),
        )
        new = Seq(id="new", num_tokens=20, arrived_s=1000.0)
        now = dataclasses.replace(state(running=seqs, waiting=(new,), sequences=2), pace=PACE)
        plan = FastServe(quantum_steps=4).plan(now)
        assert (work(plan), preempted(plan)) == ({"some": 1, "new": 20}, ["much"])
        assert plan.decisions[0].constraint == "max_sequences"

    def test_nobody_gives_way_within_one_queue(self) -> None:
        seqs = (running("a", 22, num_generated=2, arrived_s=999.0),)
        new = Seq(id="new", num_tokens=20, arrived_s=1000.0)
        now = dataclasses.replace(state(running=seqs, waiting=(new,), sequences=1), pace=PACE)
        plan = FastServe(quantum_steps=4).plan(now)
        assert (work(plan), preempted(plan)) == ({"a": 1}, [])

    def test_a_priority_number_counts_as_a_queue(self) -> None:
        low = Seq(id="low", num_tokens=20, priority=2, arrived_s=1000.0)
        assert urgencies(low, running("a", 60, num_generated=9, arrived_s=1000.0)) == [2, 2]

    @pytest.mark.parametrize("options", [{"quantum_steps": 0}, {"queues": 1}, {"guard": 0}], ids=str)
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises((InvalidRequest, ValueError), match=next(iter(options))):
            FastServe(**options)  # type: ignore[arg-type]


def heavy_tailed(count: int, rate_per_s: float, seed: int) -> list[TraceItem]:
    """Log-normal lengths, as of chats: half of the answers are short, a few are a hundred times as long."""
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1 / rate_per_s, count))
    prompts = np.clip(draw.lognormal(np.log(60), 1.0, count), 4, 600).astype(int)
    answers = np.clip(draw.lognormal(np.log(6), 1.6, count), 1, 600).astype(int)
    return [
        TraceItem(id=f"r{i}", arrival_s=float(at), prompt_tokens=int(prompt), output_tokens=int(answer))
        for i, (at, prompt, answer) in enumerate(zip(arrivals, prompts, answers, strict=True))
    ]


OPTIONS = SimulationOptions(limits=EngineLimits(max_batch_tokens=256, max_sequences=4, max_waiting=9999))


@pytest.mark.row("mem-fastserve", "effect", claims=(1, 2))
def test_on_a_heavy_tail_at_saturation_the_mean_request_is_done_in_half_the_time_of_fcfs(
    measured: Measure,
) -> None:
    """Three seeds that were not looked at before; the last in a hundred waits longer, which is the price."""
    means: dict[str, list[float]] = {"fcfs": [], "fastserve": []}
    tails: dict[str, list[float]] = {"fcfs": [], "fastserve": []}
    for seed in (10, 11, 12):
        load = heavy_tailed(240, 100.0, seed)
        tokens = []
        for name in means:
            report = simulate(load, TINY, measured_device(), name, options=OPTIONS)
            means[name].append(report.completion.mean)
            tails[name].append(report.completion.p99)
            tokens.append([record.tokens for record in report.records])
        assert tokens[0] == tokens[1], "preemption changed an answer"
    print(f"\nmean completion by seed: {means}\np99: {tails}")
    measured("mean completion, fcfs over ours", sum(means["fcfs"]) / sum(means["fastserve"]), at_least=2.0)
    measured("answers that differ from fcfs", 0, at_most=0)
