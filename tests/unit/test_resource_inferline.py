"""InferLine: stages sized for a sample's tail, envelopes that a spike leaves, and a pipeline of agents in a
world."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from resource_samples import TINY
from scaling_worlds import SLOTS, device

from evidence.plugin import Measure
from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.device import Cluster
from pentad.execution.scheduling import EngineLimits
from pentad.resource.placement import Workload, plan
from pentad.resource.scaling.base import (
    Member,
    Place,
    Pool,
    ScalerInput,
    Scaling,
    ScalingPlan,
    joined,
    to_size,
)
from pentad.resource.scaling.demand import Calm
from pentad.resource.scaling.envelope import RecentCounts, most_within, windows
from pentad.resource.scaling.inferline import Inferline
from pentad.resource.scaling.pipeline import StageOption, StageSize, in_time, latencies, plan_pipeline
from pentad.resource.scaling.speed import Speed
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    Policies,
    SimulationOptions,
    TraceItem,
    simulate_fleet,
)
from pentad.types import Objective, RunContext

QUICK = StageOption(name="quick", price_per_s=4.0, fixed_s=0.1, item_s=0.0, most=4)
SLOW = StageOption(name="slow", price_per_s=1.0, fixed_s=0.3, item_s=0.0, most=4)


class TestPlanner:
    @pytest.mark.row("ra-inferline", "mechanism")
    def test_by_hand_batches_form_of_what_waits_and_stages_add_up(self) -> None:
        two = [StageSize(option=QUICK, batch=2), StageSize(option=SLOW, batch=4)]
        # First stage: r0 0..0.1, r1 and r2 0.1..0.2; second: r0 0.1..0.4, r1 and r2 0.4..0.7.
        assert latencies([0.0, 0.01, 0.02], two) == pytest.approx([0.4, 0.69, 0.68])
        assert latencies([0.0, 0.01], [StageSize(option=QUICK, replicas=2)]) == pytest.approx([0.1, 0.1])

    @pytest.mark.row("ra-inferline", "mechanism")
    def test_the_plan_is_in_time_and_no_single_step_saves_more(self) -> None:
        arrivals = np.cumsum(np.random.default_rng(5).exponential(1 / 20, 600)).tolist()
        sizes = plan_pipeline([[QUICK, SLOW], [QUICK, SLOW]], arrivals, 1.5)
        assert in_time(arrivals, sizes, 1.5, 0.99)
        assert all(stage.option is SLOW for stage in sizes), "1.5 s suffice for cheap hardware"
        tight = plan_pipeline([[QUICK, SLOW], [QUICK, SLOW]], arrivals, 0.6)
        assert in_time(arrivals, tight, 0.6, 0.99)
        assert any(stage.option is QUICK for stage in tight)
        assert sum(s.price_per_s for s in tight) > sum(s.price_per_s for s in sizes)
        for i, stage in enumerate(sizes):
            if stage.replicas > 1:
                fewer = dataclasses.replace(stage, replicas=stage.replicas - 1)
                assert not in_time(arrivals, (*sizes[:i], fewer, *sizes[i + 1 :]), 1.5, 0.99)

    def test_a_deadline_below_the_quickest_hardware_is_refused(self) -> None:
        with pytest.raises(Infeasible, match=r"takes 0\.2 s through the pipeline") as caught:
            plan_pipeline([[QUICK, SLOW], [QUICK]], [0.0, 1.0], 0.15)
        assert "deadline_s" in str(caught.value.hint)


class TestEnvelope:
    @pytest.mark.row("ra-inferline", "mechanism")
    def test_by_hand(self) -> None:
        assert windows(10.0) == (10.0, 20.0, 40.0)
        assert most_within([0.0, 1.0, 1.5, 9.0], (1.0, 2.0, 20.0)) == (2, 3, 4)
        counts = RecentCounts((1.0, 4.0))
        for now_s, total in enumerate((0, 1, 5, 6, 6, 6)):
            counts.look(float(now_s), total)
        assert counts.within() == (0, 5)
        assert counts.highest_rate(1.0, 4.0) == 4.0

    @pytest.mark.row("ra-inferline", "mechanism")
    def test_each_stage_grows_as_soon_as_the_load_leaves_the_envelope_and_shrinks_after_calm(self) -> None:
        fast = Speed(prompt_token_s=0.0, alone_s=0.5, full_s=0.5)  # of two slots: four a second
        scaling = Inferline(deadline_s=5.0, sample_s=30.0, calm_s=15.0, interval_s=1.0).start()
        arrived, up = 0.0, 1

        def look(now_s: int, rate: float) -> int:
            nonlocal arrived, up
            arrived += rate
            members = tuple(Member(name=f"m{i}", state="ready", slots=2, speed=fast) for i in range(up))
            places = tuple(Place(name=f"p{i}", slots=2, speed=fast) for i in range(9 - up))
            pool = Pool(members=members, places=places, arrived=int(arrived), recent=((1, 1),))
            made = scaling.decide(ScalerInput(pools={"a": pool}, now_s=float(now_s)))
            up += len(made.start) - len(made.stop)
            return up

        planned = [look(now_s, 2.0) for now_s in range(60)][-1]
        spike = [look(60 + i, 12.0) for i in range(5)]
        assert spike[1] > planned, "within two looks, long before a minute's mean would tell"
        assert spike[-1] * 4.0 >= 12.0
        calm = [look(65 + i, 2.0) for i in range(90)]
        assert calm[10] == spike[-1], "not before it has been calm"
        assert planned <= calm[-1] < spike[-1]

    @pytest.mark.parametrize("options", [{"deadline_s": 0}, {"share": 1}, {"sample_s": 0}], ids=str)
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is "):
            Inferline(**options)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """The baseline: the pipeline is one unit, of which there are as many as its busiest stage needs."""

    target: float = 0.7
    calm_s: float = 30.0
    name: ClassVar[str] = "coarse"
    interval_s: ClassVar[float] = 0.5
    least_replicas: ClassVar[int] = 1
    colocates: ClassVar[bool] = False

    def start(self, seed: int = 0) -> Scaling:
        return _Units(self)

    def cost(self, members: int) -> float:
        return 1e-5


class _Units:
    def __init__(self, scaler: Coarse) -> None:
        self._scaler, self._calm = scaler, Calm[int](scaler.calm_s)

    def decide(self, state: ScalerInput) -> ScalingPlan:
        needed = max(math.ceil(p.in_flight / (SLOTS * self._scaler.target)) for p in state.pools.values())
        wanted = self._calm.highest(state.now_s, max(1, needed))
        return joined(
            [
                to_size(pool, wanted, policy="coarse", model=model, now_s=state.now_s, constraint=None)
                for model, pool in state.pools.items()
            ]
        )


STAGES = {"planner": 6, "caller": 2, "writer": 4}
"""Models of an agent's three steps, and the tokens that each writes, a second each."""
DEADLINE_S = 30.0


def runs(seed: int, seconds: float) -> tuple[TraceItem, ...]:
    """Agents' runs of three steps: 2 a second, in the third quarter three times as many for half a minute."""
    draw = np.random.default_rng(seed)
    spike = (0.6 * seconds, 0.6 * seconds + 30.0)
    arrivals: list[float] = []
    now_s = 0.0
    while now_s < seconds:
        now_s += draw.exponential(1 / (6.0 if spike[0] <= now_s < spike[1] else 2.0))
        arrivals.append(now_s)
    items = []
    for i, at in enumerate(arrivals):
        before: str | None = None
        for model, tokens in STAGES.items():
            items.append(
                TraceItem(
                    id=f"{i}/{model}", arrival_s=at, prompt_tokens=24, output_tokens=tokens, model=model,
                    after=before, run=f"run{i}",
                )
            )  # fmt: skip
            before = f"{i}/{model}"
    return tuple(items)


def world(trace: tuple[TraceItem, ...], scaler: Coarse | Inferline) -> FleetReport:
    devices = [device(f"{m}-{i}", price_per_hour=1.0, cold_start_s=3.0) for m in STAGES for i in range(12)]
    cluster = Cluster(devices=tuple(devices))
    fleets = []
    for model in STAGES:
        spec = dataclasses.replace(TINY, name=model)
        whole = plan("data-parallel", spec, cluster, Workload(prompt_tokens=24, concurrency=SLOTS))
        kept = [r for r in whole.replicas if r.devices[0].startswith(model)]
        own = dataclasses.replace(whole, replicas=tuple(dataclasses.replace(r, weight=1 / 12) for r in kept))
        context = RunContext(objective=Objective(deadline_s=DEADLINE_S))
        fleets.append(Fleet(spec=spec, cluster=cluster, plan=own, context=context))
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=256, max_sequences=SLOTS, max_waiting=100_000), kv_blocks=64
    )
    policies = dataclasses.replace(Policies.of(), scaler=scaler)
    return simulate_fleet(trace, fleets, policies, options=options)


def missed(report: FleetReport, after_s: float) -> float:
    """Share of the runs that began after an instant and took longer than their deadline from first to last
    step."""
    began: dict[str, float] = {}
    late = count = 0
    for record in report.total.records:
        run = str(record.item.run)
        began.setdefault(run, record.arrived_s)
        if record.item.model == "writer" and began[run] >= after_s:
            count += 1
            late += record.finished_s is None or record.finished_s - began[run] > DEADLINE_S
    return late / count


@pytest.mark.slow
@pytest.mark.row("ra-inferline", "effect", claims=(1, 2))
def test_a_pipeline_of_agents_costs_less_than_whole_copies_and_holds_a_spike(measured: Measure) -> None:
    # Both begin without knowing the load; what comes in the first 90 s, the sample, is not judged.
    # Developed on seeds 1 and 21. By itself seed 23 saves 35% and seed 24 22%, so the mean of five is judged.
    saved, late = [], []
    for seed in range(23, 28):
        trace = runs(seed, 300.0)
        coarse, ours = world(trace, Coarse()), world(trace, Inferline())
        saved.append(1 - ours.cost / coarse.cost)
        late.append(missed(ours, 90.0))
        print(f"\nseed {seed}: saved {saved[-1]:.1%}, late {missed(coarse, 90.0):.2%} to {late[-1]:.2%}")
    measured("cost saved over coarse scaling, mean of 5 seeds", sum(saved) / len(saved), at_least=0.25)
    measured("deadlines missed with a spike, most of 5 seeds", max(late), at_most=0.01)
