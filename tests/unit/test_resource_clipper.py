"""Clipper: the search for the batch by hand, and where it settles."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from resource_samples import GPU, LLAMA_1B
from test_resource_scheduling import Seq, running, state, work

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.execution.hints import TurnHints
from pentad.execution.scheduling import EngineLimits, SchedulerInput, StepPlan
from pentad.execution.step_samples import StepSample
from pentad.resource.cost import StepCost
from pentad.resource.scheduling.clipper import BatchLimit, Clipper
from pentad.resource.simulator import SimulationOptions, TraceItem, simulate
from pentad.resource.step_shape import StepShape


def after(kept: float, tokens: int, seconds: float, **changes: object) -> SchedulerInput:
    """The state behind a step of so many tokens, planned with a limit of `kept`."""
    step = StepSample(1, 0, tokens, tokens, tokens, seconds)
    seen = state(waiting=(Seq(id="w", num_tokens=500),), **changes)  # type: ignore[arg-type]
    return dataclasses.replace(
        seen, steps=(step,), steps_total=8, kept=BatchLimit(tokens=kept, steps_total=7)
    )


@pytest.mark.row("ra-clipper", "mechanism")
class TestSearch:
    def limit(self, seen: SchedulerInput, **options: float) -> float:
        kept = Clipper(slo_s=0.1, increase=4, **options).plan(seen).keep  # type: ignore[arg-type]
        assert isinstance(kept, BatchLimit)
        return kept.tokens

    def test_a_full_step_in_time_adds_and_a_late_one_takes_a_tenth(self) -> None:
        assert self.limit(after(40, 40, 0.09)) == 44
        assert self.limit(after(40, 40, 0.11)) == pytest.approx(36)
        assert self.limit(after(40, 40, 0.11), backoff=0.5) == 20

    def test_a_step_that_was_not_full_tells_nothing_unless_it_was_late(self) -> None:
        assert self.limit(after(40, 30, 0.09)) == 40
        assert self.limit(after(40, 30, 0.11)) == pytest.approx(27)

    def test_it_stays_between_one_token_and_the_engines_limit(self) -> None:
        assert self.limit(after(1, 1, 9.0)) == 1
        assert self.limit(after(62, 62, 0.01)) == 64

    def test_the_plan_is_as_large_as_the_limit_and_the_same_state_gives_the_same_plan(self) -> None:
        seen = after(40, 40, 0.09)
        plan = Clipper(slo_s=0.1, increase=4).plan(seen)
        assert work(plan) == {"w": 44}
        assert Clipper(slo_s=0.1, increase=4).plan(seen) == plan
        first = Clipper(slo_s=0.1, first_tokens=16).plan(state(waiting=(Seq(id="w", num_tokens=500),)))
        assert work(first) == {"w": 16}

    def test_without_an_objective_the_wish_of_those_that_run_counts_and_without_any_nothing(self) -> None:
        wishing = running("d", 20, turn_hints=TurnHints(inter_token_s=0.05))
        late = dataclasses.replace(after(40, 40, 0.06), running=(wishing,))
        kept = Clipper().plan(late).keep
        assert isinstance(kept, BatchLimit)
        assert kept.tokens == pytest.approx(36)
        assert Clipper().plan(after(40, 40, 0.06)).keep is None

    @pytest.mark.parametrize(
        "options", [{"slo_s": 0}, {"increase": 0}, {"backoff": 1.0}, {"first_tokens": 0}], ids=str
    )
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises((InvalidRequest, ValueError), match=next(iter(options))):
            Clipper(**options)  # type: ignore[arg-type]


class Watched:
    """Clipper, and the limit that it had for each step."""

    name = "clipper"

    def __init__(self, slo_s: float) -> None:
        self.policy = Clipper(slo_s=slo_s, increase=8)
        self.limits: list[float] = []

    def plan(self, state: SchedulerInput) -> StepPlan:
        plan = self.policy.plan(state)
        assert isinstance(plan.keep, BatchLimit)
        self.limits.append(plan.keep.tokens)
        return plan


@pytest.mark.row("ra-clipper", "effect", claims=(1,))
@pytest.mark.parametrize("slo_s", [0.006, 0.012])
def test_the_batch_settles_at_what_the_objective_bears(slo_s: float, measured: Measure) -> None:
    """Queries of 32 tokens whose answer is one, all there at once: the batch is bounded by the objective."""
    cost = StepCost(profile=GPU, spec=LLAMA_1B)
    bears = next(
        32 * n
        for n in range(1, 64)
        if cost.seconds(StepShape.from_sequences([(32, 32)] * (n + 1), rows=n + 1)) > slo_s
    )
    load = [TraceItem(id=f"q{i}", prompt_tokens=32, output_tokens=1) for i in range(1000)]
    limits = EngineLimits(max_batch_tokens=2048, max_sequences=64, max_waiting=9999)
    watched = Watched(slo_s)
    report = simulate(load, LLAMA_1B, GPU, watched, options=SimulationOptions(limits=limits), cost=cost)
    assert len(report.completed) == 1000
    settled = watched.limits[len(watched.limits) // 2 : -2]
    mean = float(np.mean(settled))
    print(f"\n{slo_s} s bear {bears} to {bears + 32} tokens, settled at {mean:.0f} over {len(settled)} steps")
    measured("distance of the mean batch from the limit", abs(mean / (bears + 16) - 1), at_most=0.10)
