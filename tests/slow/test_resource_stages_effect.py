"""Models that runs come to next are loaded before: agents of one user on three devices for five models.

A run has about four stages, each by a model of its own, with tools of 2 to 12 s between; another run comes
every minute, a cold start takes 5 s. Seeds 1 and 3 were looked at while the policy was made, these not.
"""

from __future__ import annotations

import statistics

import pytest
from stage_worlds import TOOLS_S, Follows, played, staged_runs

from evidence.plugin import Measure
from pentad.resource.scaling.proactive import Proactive
from pentad.resource.simulator import FleetReport

pytestmark = pytest.mark.slow

SEEDS = (11, 12)
WORKFLOW: Follows = {
    "planner": {"coder": 0.7, "vision": 0.3},
    "coder": {"critic": 0.8, "coder": 0.2},
    "vision": {"coder": 0.9},
    "critic": {"coder": 0.3, "writer": 0.7},
}
DECLARED: Follows = {
    "planner": {"coder": 1.0},
    "coder": {"critic": 1.0},
    "critic": {"writer": 1.0},
    "vision": {"writer": 1.0},
}
ACTUAL: Follows = {
    "planner": {"coder": 0.3, "vision": 0.7},
    "coder": {"critic": 0.4, "coder": 0.2, "vision": 0.4},
    "vision": {"coder": 0.6, "critic": 0.4},
    "critic": {"coder": 0.3, "writer": 0.7},
}
"""What runs do that were declared to go straight: the shares are far from the declared ones."""


def of(follows: Follows, seed: int, scaler: Proactive, *, announced: bool = False) -> FleetReport:
    items = staged_runs(follows, seed, runs=40, every_s=60.0, announced=announced)
    return played(items, scaler, models=tuple(TOOLS_S), devices=3, cold_start_s=5.0)


def stall_s(report: FleetReport) -> float:
    return sum(record.cold_wait_s for record in report.total.records)


@pytest.mark.row("fut-proactive", "effect", negative=True)
def test_preloading_takes_most_of_the_stalls_away_but_less_than_was_hoped(measured: Measure) -> None:
    """Against loading on demand, where the least recently used model gives way.

    The row asks for 70% fewer stalls and a 95th percentile that is 20% lower. Neither is reached: a tool that
    returns sooner than a cold start takes cannot be prepared for, what two runs want at once does not fit
    three devices, and the longest runs are mostly their tools. Tried were a longer horizon (more starts are
    wasted, stalls stay), less likely stages, and two devices.
    """
    stalls, tails, wasted = [], [], []
    for seed in SEEDS:
        plain = of(WORKFLOW, seed, Proactive(looks_ahead=False))
        ours = of(WORKFLOW, seed, Proactive(follows=WORKFLOW))
        stalls.append(stall_s(ours) / stall_s(plain))
        tails.append(ours.total.run_completion.p95 / plain.total.run_completion.p95)
        wasted.append(ours.wasted_starts / ours.cold_starts)
        print(
            f"\nseed {seed}: stalls {stall_s(plain):.0f} -> {stall_s(ours):.0f} s, "
            f"run mean {plain.total.run_completion.mean:.1f} -> {ours.total.run_completion.mean:.1f} s, "
            f"p95 {plain.total.run_completion.p95:.1f} -> {ours.total.run_completion.p95:.1f} s, "
            f"starts {plain.cold_starts} -> {ours.cold_starts}, wasted {ours.wasted_starts}"
        )
    measured("stalls, of those on demand", statistics.mean(stalls), at_most=0.5)
    measured("p95 of run completion, of that on demand", statistics.mean(tails), at_most=1.0)
    measured("cold starts that were for nothing", statistics.mean(wasted), at_most=0.15)


@pytest.mark.row("fut-dynamic-res", "effect", negative=True)
def test_runs_that_do_something_else_than_declared_end_sooner_but_not_as_soon_as_with_an_oracle(
    measured: Measure,
) -> None:
    """The cost of an allocation is the mean completion of runs on the same devices. The baseline believes the
    declaration throughout. The oracle is the same policy told of each call's successor and when it comes.

    The row asks for 10% of the oracle. On the seeds that were looked at it was 9.7% and 10.9%, on these 15%:
    which branch a run takes is drawn, so what is learnt are shares, and the oracle knows the draw.
    """
    found: dict[str, list[float]] = {"declared": [], "learnt": [], "oracle": []}
    for seed in SEEDS:
        for name, scaler in (
            ("declared", Proactive(follows=DECLARED, learns=False)),
            ("learnt", Proactive(follows=DECLARED)),
            ("oracle", Proactive(follows=ACTUAL)),
        ):
            report = of(ACTUAL, seed, scaler, announced=name == "oracle")
            found[name].append(report.total.run_completion.mean)
    print(f"\nmean run completion by seed {found}")
    means = {name: statistics.mean(each) for name, each in found.items()}
    measured("run completion, over the oracle's", means["learnt"] / means["oracle"], at_most=1.25, unit="x")
    measured("run completion, of the declaration's", means["learnt"] / means["declared"], at_most=1.0)
