"""Scalers that look ahead: what they keep up, and what that saves on loads of days and of bursts."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import pytest
from scaling_worlds import LENGTHS, MEAN_S, SLOTS, device, replay

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.resource.scaling.base import Member, Place, Pool, ScalerInput, Scaling
from pentad.resource.scaling.elastic import Elastic
from pentad.resource.scaling.mark import Mark
from pentad.resource.simulator import TraceItem, bursty, diurnal, read_trace

AZURE = pathlib.Path(__file__).parents[3] / "shared" / "data" / "azure-llm-2023-code.csv"


def pool(
    *, steady: int = 0, bursts: int = 0, vms: int = 0, functions: int = 0, running: int = 0, arrived: int = 0
) -> Pool:
    """Cheap and dear replicas that are ready, the cheap ones with `running` requests, and places of both."""
    return Pool(
        members=(
            *(
                Member(name=f"vm{i}", state="ready", running=running, slots=10, price_per_s=1.0)
                for i in range(steady)
            ),
            *(Member(name=f"fn{i}", state="ready", slots=10, price_per_s=3.0) for i in range(bursts)),
        ),
        places=(
            *(Place(name=f"v{i}", slots=10, cold_start_s=40.0, price_per_s=1.0) for i in range(vms)),
            *(Place(name=f"f{i}", slots=10, cold_start_s=0.5, price_per_s=3.0) for i in range(functions)),
        ),
        arrived=arrived,
    )


def at(now_s: float, **pools: Pool) -> ScalerInput:
    return ScalerInput(pools=pools, now_s=now_s)


class TestMark:
    def settled(self, per_s: int) -> Scaling:
        """At work on a pool whose requests come evenly and take ten seconds each."""
        scaling = Mark(target=1.0, horizon_s=10.0, calm_s=0.0, burst_calm_s=0.0).start()
        for now_s in range(200):
            flying = 10 * per_s
            scaling.decide(
                at(
                    float(now_s),
                    m=dataclasses.replace(pool(steady=1, running=flying), arrived=now_s * per_s + flying),
                )
            )
        return scaling

    @pytest.mark.row("ra-mark", "mechanism")
    def test_cheap_replicas_are_started_for_the_forecast_before_requests_wait(self) -> None:
        made = self.settled(4).decide(at(200.0, m=pool(steady=2, vms=9, functions=9, running=5, arrived=840)))
        assert made.start == ("v0", "v1")  # 4 a second for 10 s each are 40 slots, whatever runs just now
        assert made.decisions[0].constraint == "forecast"

    @pytest.mark.row("ra-mark", "mechanism")
    def test_what_was_not_foreseen_goes_to_quick_dear_replicas_until_there_are_slots(self) -> None:
        scaling = self.settled(2)
        surge = dataclasses.replace(pool(steady=2, vms=9, functions=9, running=10, arrived=440), waiting=15)
        made = scaling.decide(at(200.0, m=surge))
        assert [name for name in made.start if name[0] == "f"] == ["f0", "f1"]
        assert made.decisions[0].constraint == "burst"
        over = pool(steady=2, bursts=2, vms=9, running=5, arrived=450)
        assert {"fn0", "fn1"} <= set(scaling.decide(at(201.0, m=over)).stop)

    def test_of_one_price_it_starts_what_waiting_requests_need(self) -> None:
        waiting = dataclasses.replace(pool(vms=5), waiting=25)
        assert len(Mark().start().decide(at(0.0, m=waiting)).start) == 3

    @pytest.mark.parametrize("kind", [Mark, Elastic])
    @pytest.mark.parametrize(
        "options", [{"target": 0}, {"least": -1}, {"bin_s": 0}, {"coverage": 1}], ids=str
    )
    def test_impossible_options_are_refused(
        self, kind: type[Mark] | type[Elastic], options: dict[str, float]
    ) -> None:
        with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is "):
            kind(**options)  # type: ignore[arg-type]


class TestElastic:
    @pytest.mark.row("cost-elastic", "mechanism")
    def test_a_model_that_nobody_is_likely_to_ask_has_no_replica(self) -> None:
        scaling = Elastic(calm_s=5.0, horizon_s=10.0, idle_chance=0.3).start()
        idle = dataclasses.replace(pool(steady=1), arrived=3)
        stops = [scaling.decide(at(float(now_s), m=idle)).stop for now_s in range(300)]
        assert ("vm0",) in stops
        assert scaling.decide(at(301.0, m=dataclasses.replace(pool(vms=1), waiting=1, arrived=4))).start == (
            "v0",
        )

    @pytest.mark.row("cost-elastic", "mechanism")
    def test_an_idle_replica_makes_room_for_another_model_at_once(self) -> None:
        scaling = Elastic(calm_s=1000.0).start()
        busy = pool(steady=1, running=9, arrived=9)
        scaling.decide(at(0.0, a=busy, b=Pool(places=(Place(name="v", slots=10),))))
        kept = dataclasses.replace(pool(steady=1), arrived=9)
        assert scaling.decide(at(1.0, a=kept, b=Pool(places=(Place(name="v", slots=10),)))).stop == ()
        made = scaling.decide(at(2.0, a=kept, b=Pool(waiting=1, arrived=1)))
        assert made.stop == ("vm0",)
        assert made.decisions[0].constraint == "another model"


def unforeseen(trace: tuple[TraceItem, ...], measured: Measure, name: str) -> None:
    """Compares MArk with the reactive scaler on the same cheap and dear devices."""
    devices = [
        *(device(f"vm-{i}", price_per_hour=1.0, cold_start_s=40.0) for i in range(8)),
        *(device(f"fn-{i}", price_per_hour=2.5, cold_start_s=0.5) for i in range(12)),
    ]
    reactive, ahead = replay(trace, devices, "queue"), replay(trace, devices, "mark")
    assert len(ahead.total.completed) == len(trace)
    missed = [1 - report.total.attainment for report in (reactive, ahead)]
    print(
        f"\n{name}: cost {reactive.cost:.2f} to {ahead.cost:.2f}, missed {missed[0]:.2%} to {missed[1]:.2%}"
    )
    measured(f"cost saved over reactive, {name}", 1 - ahead.cost / reactive.cost, at_least=0.3)
    measured(f"deadlines missed over reactive's, {name}", missed[1] - missed[0], at_most=0.0)


@pytest.mark.thorough
@pytest.mark.row("ra-mark", "effect", claims=(1,))
@pytest.mark.parametrize("seed", [1, 2])
def test_bursts_cost_a_third_less_than_with_a_reactive_scaler(seed: int, measured: Measure) -> None:
    unforeseen(bursty(2000, rate_per_s=3.0, seed=seed, **LENGTHS), measured, f"made-up bursts {seed}")


@pytest.mark.thorough
@pytest.mark.row("ra-mark", "effect")
@pytest.mark.skipif(not AZURE.exists(), reason=f"there is no {AZURE.name} in shared/data")
def test_the_bursts_of_a_public_trace_cost_a_third_less_than_with_a_reactive_scaler(
    measured: Measure,
) -> None:
    # Its arrivals; lengths as elsewhere here, since engines of few slots shall feel them.
    lengths = bursty(1500, rate_per_s=1.0, **LENGTHS)
    real = read_trace(AZURE, limit=1500)
    trace = tuple(
        dataclasses.replace(item, prompt_tokens=own.prompt_tokens, output_tokens=own.output_tokens)
        for item, own in zip(real, lengths, strict=True)
    )
    unforeseen(trace, measured, "Azure code 2023")


@pytest.mark.thorough
@pytest.mark.row("cost-elastic", "effect", claims=(1,))
def test_days_take_two_fifths_fewer_device_hours_than_a_fleet_for_the_peak(measured: Measure) -> None:
    rate_per_s = 3.0
    trace = diurnal(4000, rate_per_s=rate_per_s, period_s=1300.0, seed=3, **LENGTHS)
    devices = [device(f"d-{i}", price_per_hour=1.0, cold_start_s=8.0) for i in range(10)]
    target = 0.7  # of both: the peak is 8/3 of the mean
    peak = math.ceil(rate_per_s * 8 / 3 * MEAN_S / (SLOTS * target))
    fixed = replay(trace, devices, f"fixed:replicas={peak}")
    ours = replay(trace, devices, f"elastic:target={target},calm_s=20,horizon_s=15,bin_s=5")
    hours = [sum(engine.up_s for engine in report.engines) / 3600 for report in (fixed, ours)]
    print(f"\n{peak} fixed: {hours[0]:.2f} h; elastic {hours[1]:.2f} h, {ours.total.attainment:.2%} in time")
    measured("device-hours saved over a fleet for the peak", 1 - hours[1] / hours[0], at_least=0.4)
    measured("share of deadlines met", ours.total.attainment, at_least=0.95)
