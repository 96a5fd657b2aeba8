"""Scaling: every scaler keeps to its places and says why; in a world engines start cold and end drained."""

from __future__ import annotations

import dataclasses
import itertools
import time

import pytest
from resource_samples import TINY, measured_device

from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.execution.device import Cluster, Link
from pentad.execution.scheduling import EngineLimits
from pentad.registry import known
from pentad.resource.placement import Workload, plan
from pentad.resource.scaling.base import FleetScaler, Member, Place, Pool, ScalerInput, Scaling, ScalingPlan
from pentad.resource.scaling.fixed import FixedReplicas
from pentad.resource.scaling.queue import QueueScaler
from pentad.resource.simulator import (
    Fleet,
    FleetReport,
    Policies,
    SimulationOptions,
    TraceItem,
    poisson,
    simulate_fleet,
)


def pool(up: int, places: int, *, running: int = 0, waiting: int = 0, **changes: object) -> Pool:
    members = tuple(Member(name=f"m{i}", state="ready", slots=10, running=running) for i in range(up))
    spare = tuple(Place(name=f"p{i}", slots=10, cold_start_s=5.0) for i in range(places))
    return dataclasses.replace(Pool(members=members, places=spare, waiting=waiting), **changes)  # type: ignore[arg-type]


def at(now_s: float, found: Pool) -> ScalerInput:
    return ScalerInput(pools={"m": found}, now_s=now_s)


def size(found: Pool, made: ScalingPlan) -> int:
    return sum(member.state != "draining" for member in found.members) + len(made.start) - len(made.stop)


@pytest.mark.parametrize("name", known("scaler"))
class TestEveryScaler:
    def scaler(self, name: str) -> FleetScaler:
        return build("scaler", Choice(name=name))  # type: ignore[no-any-return]

    def test_equal_states_in_equal_order_give_equal_plans(self, name: str) -> None:
        loads = [pool(0, 4, waiting=30), pool(2, 2, running=10), pool(4, 0), pool(4, 0)]
        first, second = (
            [working.decide(at(60.0 * i, load)) for i, load in enumerate(loads)]
            for working in (self.scaler(name).start(3), self.scaler(name).start(3))
        )
        assert first == second

    def test_starts_only_at_places_stops_only_what_is_up_and_says_why(self, name: str) -> None:
        working = self.scaler(name).start()
        for now_s, load in enumerate((pool(0, 3, waiting=90), pool(3, 0, running=9), pool(3, 0), pool(3, 0))):
            made = working.decide(at(100.0 * now_s, load))
            assert set(made.start) <= {place.name for place in load.places}
            assert set(made.stop) <= {member.name for member in load.members}
            for decision in made.decisions:
                assert (decision.layer, decision.policy) == ("resource", name)
                assert decision.subject == "replicas of m"
                assert decision.chosen == str(size(load, made))
                assert decision.at_s == 100.0 * now_s
            assert bool(made.decisions) == bool(made.start or made.stop)

    def test_a_waiting_request_gets_a_replica_where_there_is_a_place(self, name: str) -> None:
        assert self.scaler(name).start().decide(at(0.0, pool(0, 1, waiting=1))).start == ("p0",)
        nowhere = self.scaler(name).start().decide(at(0.0, pool(0, 0, waiting=1)))
        assert nowhere == ScalingPlan()

    def test_decides_at_intervals_and_its_cost_is_of_the_right_order(self, name: str) -> None:
        scaler = self.scaler(name)
        assert scaler.interval_s > 0
        working, load = scaler.start(), pool(64, 0, running=8)
        working.decide(at(0.0, load))
        begin = time.thread_time()
        for i in range(50):
            working.decide(at(float(i), load))
        took_s = (time.thread_time() - begin) / 50
        assert took_s / 20 < scaler.cost(64) < took_s * 20


class TestQueue:
    def track(self, **options: float) -> Scaling:
        return QueueScaler(**options).start()  # type: ignore[arg-type]

    def test_as_many_are_started_at_once_as_hold_the_demand_at_the_target(self) -> None:
        made = self.track(target=0.5).decide(at(0.0, pool(1, 9, running=10, waiting=7)))
        assert size(pool(1, 9), made) == 4  # 17 requests, 5 of 10 slots each
        assert made.decisions[0].candidates == (("now", 1.0), ("wanted", 4.0), ("in flight", 17.0))

    def test_replicas_that_are_starting_are_not_started_again(self) -> None:
        starting = tuple(Member(name=f"s{i}", state="starting", slots=10) for i in range(3))
        load = pool(1, 9, running=10, waiting=7)
        load = dataclasses.replace(load, members=(*load.members, *starting))
        assert self.track(target=0.5).decide(at(0.0, load)) == ScalingPlan()

    def test_fewer_only_after_calm_and_then_what_the_calm_needed(self) -> None:
        tracking = self.track(target=1.0, calm_s=30.0)
        busy, calm = pool(4, 0, running=10), pool(4, 0, running=4)  # 16 requests need 2 replicas
        assert tracking.decide(at(0.0, busy)) == ScalingPlan()
        for now_s in range(1, 31):
            assert tracking.decide(at(float(now_s), calm)) == ScalingPlan()
        assert size(calm, tracking.decide(at(31.0, calm))) == 2

    def test_a_burst_within_the_calm_begins_it_again(self) -> None:
        tracking = self.track(target=1.0, calm_s=30.0)
        busy, calm = pool(4, 0, running=10), pool(4, 0)
        for now_s in range(60):
            load = busy if now_s in (0, 20) else calm
            assert tracking.decide(at(float(now_s), load)) == ScalingPlan() or now_s > 50

    def test_requests_that_come_and_go_between_two_looks_are_demand(self) -> None:
        tracking = self.track(least=0, calm_s=5.0)
        for now_s in range(20):
            load = dataclasses.replace(pool(1, 0), arrived=now_s)
            assert tracking.decide(at(float(now_s), load)) == ScalingPlan()
        for now_s in range(20, 25):
            assert tracking.decide(at(float(now_s), load)) == ScalingPlan()
        assert tracking.decide(at(25.0, load)).stop == ("m0",)

    def test_draining_replicas_are_kept_before_cold_ones_start(self) -> None:
        load = pool(1, 3, running=10, waiting=9)
        drained = Member(name="d", state="draining", slots=10)
        load = dataclasses.replace(load, members=(*load.members, drained))
        assert self.track(target=1.0).decide(at(0.0, load)).start == ("d",)

    def test_bounds_bind_and_say_so(self) -> None:
        full = self.track(most=2).decide(at(0.0, pool(1, 9, waiting=90)))
        assert (len(full.start), full.decisions[0].constraint) == (1, "most")
        short = self.track().decide(at(0.0, pool(1, 2, waiting=90)))
        assert (len(short.start), short.decisions[0].constraint) == (2, "places")
        warm = self.track(least=3).decide(at(0.0, pool(0, 9)))
        assert (len(warm.start), warm.decisions[0].constraint) == (3, "least")

    def test_the_cheapest_place_is_taken_and_the_least_loaded_dearest_replica_stopped(self) -> None:
        places = (Place(name="dear", price_per_s=2.0), Place(name="cheap", price_per_s=1.0))
        made = FixedReplicas(replicas=1).start().decide(at(0.0, Pool(places=places)))
        assert made.start == ("cheap",)
        members = (
            Member(name="busy", state="ready", running=2, price_per_s=9.0),
            Member(name="dear", state="ready", running=1, price_per_s=2.0),
            Member(name="cheap", state="ready", running=1, price_per_s=1.0),
        )
        made = FixedReplicas(replicas=2).start().decide(at(0.0, Pool(members=members)))
        assert made.stop == ("dear",)

    @pytest.mark.parametrize(
        "options", [{"target": 0}, {"least": -1}, {"most": 0}, {"interval_s": 0}], ids=str
    )
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is "):
            QueueScaler(**options)  # type: ignore[arg-type]


BOXES = tuple(dataclasses.replace(measured_device(), name=f"box-{i}") for i in range(4))
CLUSTER = Cluster(
    devices=BOXES,
    links=tuple(
        Link(source=a.name, target=b.name, bytes_per_s=1e8, latency_s=1e-3)
        for a, b in itertools.permutations(BOXES, 2)
    ),
)
BURST = tuple(
    dataclasses.replace(item, arrival_s=20.0 + item.arrival_s)
    for item in poisson(130, rate_per_s=80.0, prompt_tokens=(20, 200), output_tokens=(20, 60), seed=2)
)
LATE = (TraceItem(id="late", arrival_s=60.0, prompt_tokens=50, output_tokens=5),)


def run(
    scaler: str, trace: tuple[TraceItem, ...] = (*BURST, *LATE), cold_start_s: float = 0.5
) -> FleetReport:
    found = plan("data-parallel", TINY, CLUSTER, Workload(prompt_tokens=100, concurrency=4))
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=128, max_sequences=4, max_waiting=1000),
        kv_blocks=400,
        cold_start_s=cold_start_s,
    )
    policies = Policies.of(scaler=scaler)
    return simulate_fleet(trace, Fleet(spec=TINY, cluster=CLUSTER, plan=found), policies, options=options)


class TestInAWorld:
    def test_replicas_follow_the_load_and_their_time_is_what_is_paid(self) -> None:
        everywhere, following = run("fixed"), run("queue:calm_s=5")
        assert len(following.total.completed) == len(BURST) + 1
        assert following.cold_starts == 3
        held = sum(engine.up_s for engine in following.engines)
        assert sum(engine.up_s for engine in everywhere.engines) == pytest.approx(4 * 60, rel=0.01)
        assert 60 < held < 60 + 3 * 15
        sizes = [int(decision.chosen) for decision in following.scaling]
        assert (sizes[0], max(sizes), sizes[-1]) == (1, 4, 1)
        assert [decision.at_s for decision in following.scaling] == sorted(d.at_s for d in following.scaling)

    def test_a_stopped_engine_first_ends_what_it_was_given(self) -> None:
        report = run("queue:calm_s=0,interval_s=0.01", cold_start_s=0.0)
        assert len(report.total.completed) == len(BURST) + 1
        assert [len(r.tokens) for r in report.total.records] == [i.output_tokens for i in (*BURST, *LATE)]
        assert len(report.scaling) > 4, "it must have come and gone to show anything"

    def test_the_first_request_after_going_to_none_waits_for_the_cold_start(self) -> None:
        report = run("queue:least=0,calm_s=5", cold_start_s=2.0)
        late = report.total.records[-1]
        assert 2.0 <= late.ttft_s <= 2.0 + 1.0 + 0.1, "the cold start and at most one interval"
        assert report.engines[0].up_s < 60

    def test_more_replicas_shorten_the_burst_and_a_longer_cold_start_lengthens_it(self) -> None:
        one, quick, slow = run("fixed:replicas=1"), run("queue"), run("queue", cold_start_s=3.0)
        assert sum(engine.given > 0 for engine in one.engines) == 1
        assert quick.total.completion.mean < one.total.completion.mean
        assert quick.total.completion.p95 <= slow.total.completion.p95

    def test_no_replica_at_all_refuses_what_waits_in_the_end(self) -> None:
        report = run("fixed:replicas=0", LATE)
        assert report.total.to_dict()["refused"] == {"unavailable": 1}

    def test_cold_starts_take_the_weights_off_the_disk(self) -> None:
        found = plan("data-parallel", TINY, CLUSTER)
        options = SimulationOptions(limits=EngineLimits(max_sequences=1))
        items = tuple(TraceItem(id=f"{i}", prompt_tokens=200, output_tokens=100) for i in range(4))
        late = TraceItem(id="late", arrival_s=0.1, prompt_tokens=20, output_tokens=2)
        fleet = Fleet(spec=TINY, cluster=CLUSTER, plan=found)
        report = simulate_fleet(
            (*items, late), fleet, Policies.of(scaler="queue:interval_s=0.001"), options=options
        )
        assert report.total.records[-1].engine != "box-0"
        slow = dataclasses.replace(options, cold_start_s=0.2)
        waited = simulate_fleet(
            (*items, late), fleet, Policies.of(scaler="queue:interval_s=0.001"), options=slow
        )
        assert waited.total.records[-1].engine == "box-0", "the others are not up yet"
        assert found.stages[0].weight_bytes / 1e9 < 0.1, "the profile's disk reads 1 GB/s"
