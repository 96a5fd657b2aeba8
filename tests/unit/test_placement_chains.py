"""Volunteers and rings of phones: who hosts which layers, what is lost with a server, and what moves."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence

import pytest
from resource_samples import GPU

from evidence.plugin import Measure
from pentad.errors import Infeasible
from pentad.execution.device import Cluster, DeviceProfile, LinkSpeed, MemoryTier
from pentad.resource.placement import ModelForm, PlacementProblem, Workload
from pentad.resource.placement.lingualinked import LinguaLinked, RingMetrics, ring_layers
from pentad.resource.placement.petals import Petals, swarm_of
from pentad.resource.placement.swarm import Host, chains, joined_swarm, next_move, rates_of, thinnest
from pentad.resource.placement.uniform import UniformPipeline
from pentad.resource.simulator.chain_control import RingControl, SwarmControl, slowest_s
from pentad.resource.simulator.chains import ChainServer, ChainWorld
from pentad.resource.simulator.clock import VirtualClock
from pentad.resource.simulator.runner import SimulatedRunner, drawn_token
from placement_samples import decoder

SPEC = decoder(24, width=4096, heads=32, kv_heads=8)
"""Of 6.2e9 parameters."""


def box(name: str, rate: float, layers: float, bits: int = 16) -> DeviceProfile:
    """A device that reads so fast and holds about so many layers of the model."""
    each = bits / 8 * SPEC.layer_parameters(0, 1)
    memory = MemoryTier(name="main", capacity_bytes=int(layers * each * 1.3), read_bytes_per_s=rate)
    return DeviceProfile(
        name=name, kind="phone", source="assumed", memory=(memory,), flops_per_s={"bf16": 100 * rate}
    )


def asked(
    *boxes: DeviceProfile, bytes_per_s: float = 1.25e8, latency_s: float = 5e-3, bits: int = 16
) -> PlacementProblem:
    cluster = Cluster(devices=boxes, default_link=LinkSpeed(bytes_per_s=bytes_per_s, latency_s=latency_s))
    load = Workload(prompt_tokens=64, new_tokens=32, concurrency=4)
    return PlacementProblem(spec=SPEC, cluster=cluster, workload=load, form=ModelForm(weight_bits=bits))


@pytest.mark.row("par-petals", "mechanism")
class TestSwarm:
    HOSTS = (
        Host(name="a", first=0, count=4, rate=2.0),
        Host(name="b", first=2, count=4, rate=1.0),
        Host(name="c", first=4, count=2, rate=3.0),
    )

    def test_a_newcomer_hosts_the_thinnest_layers(self) -> None:
        assert rates_of(self.HOSTS, 6) == [2, 2, 3, 3, 4, 4]
        assert thinnest(rates_of(self.HOSTS, 6), 3) == 0
        joined = joined_swarm([("a", 4, 1.0), ("b", 4, 1.0), ("c", 2, 1.0)], 6)
        assert [host.first for host in joined] == [0, 2, 0], "b covers what a left, c the ends that have one"

    def test_one_moves_only_where_the_swarm_gets_faster_by_the_share(self) -> None:
        hosts = [
            Host(name="a", first=0, count=2, rate=3.0),
            Host(name="b", first=0, count=2, rate=3.0),
            Host(name="c", first=2, count=2, rate=1.0),
        ]
        moved = next_move(hosts, 4, gain=0.2)
        assert moved is not None
        assert (moved.name, moved.first) == ("a", 2), "3 pass everywhere, in place of 1"
        assert next_move(hosts, 4, gain=2.1) is None

    def test_layers_that_nobody_hosts_are_taken_over(self) -> None:
        hosts = [Host(name=n, first=0, count=2, rate=1.0) for n in "ab"]
        moved = next_move(hosts, 4, gain=0.2)
        assert moved is not None
        assert moved.first == 2

    def test_the_flow_is_divided_into_chains_and_a_part_of_the_layers_takes_a_part_of_the_time(self) -> None:
        found = chains(self.HOSTS, 6)
        assert sum(width for _, width in found) == pytest.approx(2.0), "layers 0 and 1 pass no more"
        for path, _ in found:
            bounds = [(first, end) for _, first, end in path]
            assert bounds[0][0] == 0
            assert bounds[-1][1] == 6
            assert all(one[1] == other[0] for one, other in itertools.pairwise(bounds))

    def test_a_plan_covers_all_layers_with_no_host_over_its_memory(self) -> None:
        problem = asked(*(box(f"v{i}", 1e10, 6 + i % 3) for i in range(10)))
        plan = Petals().plan(problem)
        assert min(rates_of(swarm_of(problem, gain=0.2), SPEC.layers)) > 0
        assert len(plan.replicas) > 1

    def test_too_few_volunteers_are_refused(self) -> None:
        with pytest.raises(Infeasible) as caught:
            Petals().plan(asked(box("a", 1e10, 5), box("b", 1e10, 5)))
        assert caught.value.hint


def volunteers(problem: PlacementProblem) -> list[ChainServer]:
    return [
        ChainServer(name=host.name, layers=(host.first, host.end)) for host in swarm_of(problem, gain=0.2)
    ]


SWARM = asked(*(box(f"v{i:02}", rate, 7) for i, rate in enumerate([1e10, 2e10, 1.5e10, 1e10] * 4)))


def swarm_run(killed: Sequence[str] = (), *, until_s: float, moving: bool = True) -> ChainWorld:
    """16 sessions in the swarm, of which volunteers die after 20 s."""
    world = ChainWorld(SWARM, volunteers(SWARM), look=SwarmControl() if moving else None, every_s=1.0)
    for name in killed:
        world.kill(name, 20.0)
    world.run(16, until_s, seed=5)
    return world


def compare(one: ChainWorld, other: ChainWorld) -> None:
    """The same sessions have the same tokens, as far as both have come."""
    theirs = {session.id: session.tokens for session in other.sessions}
    common = [(session.tokens, theirs[session.id]) for session in one.sessions if session.id in theirs]
    assert sum(min(len(own), len(others)) for own, others in common) > 100
    for own, others in common:
        count = min(len(own), len(others))
        assert own[:count] == others[:count]


def first_hosts() -> list[str]:
    """Three of the five volunteers that host the first layers."""
    return [server.name for server in volunteers(SWARM) if server.layers[0] == 0][:3]


@pytest.mark.row("par-petals", "mechanism")
def test_killed_servers_change_no_token_and_their_inputs_are_sent_again() -> None:
    calm, hit = swarm_run(until_s=30.0), swarm_run(first_hosts(), until_s=30.0)
    compare(calm, hit)
    lost = [session for session in hit.sessions if session.rebuilt_tokens]
    assert lost
    assert not any(session.rebuilt_tokens for session in calm.sessions)
    for session in lost:  # its prompt and answer up to then, as often as it was interrupted
        assert session.rebuilt_tokens >= session.prompt_tokens


@pytest.mark.slow
@pytest.mark.row("par-petals", "effect", claims=(2,))
@pytest.mark.parametrize("seed", [None, 2, 3])
def test_the_swarm_recovers_once_volunteers_have_moved(seed: int | None, measured: Measure) -> None:
    """Of 16 volunteers three of five with the first layers die after 20 s, or two drawn at random.

    Throughput from 100 s to 240 s is compared with the swarm's of which none dies in the same span. The swarm
    was fixed first; looked at meanwhile were seed 1 and the three.
    """
    names = [server.name for server in volunteers(SWARM)]
    killed = first_hosts() if seed is None else random.Random(seed).sample(names, 2)
    calm, moving, still = (
        swarm_run(gone, until_s=240.0, moving=moves).tokens_per_s(100.0, 240.0)
        for gone, moves in (((), False), (killed, True), (killed, False))
    )
    measured("throughput after the moves, of a swarm without failures", moving / calm, at_least=0.8)
    if seed is None:
        measured("throughput after the moves over no moves", moving / still, at_least=1.1, unit="x")


RATES = (4e10, 1e10, 2e10, 3e10)
PHONES = asked(*(box(f"p{i}", rate, 14, 4) for i, rate in enumerate(RATES)), bytes_per_s=3.75e7, bits=4)
LINE = [device.name for device in PHONES.cluster.devices]


def ring(
    problem: PlacementProblem, counts: tuple[int, ...], control: RingControl | None = None
) -> ChainWorld:
    ends = list(itertools.accumulate(counts))
    servers = [
        ChainServer(name=name, layers=(end - count, end))
        for name, count, end in zip(LINE, counts, ends, strict=True)
    ]
    return ChainWorld(problem, servers, look=control, every_s=1.0)


@pytest.mark.row("cm-lingualinked", "mechanism")
class TestRing:
    METRICS = RingMetrics(layer_s=(1.0, 2.0, 4.0), send_s=(0.5, 0.5, 0.5), most_layers=(9, 9, 9), layers=8)

    def test_the_slowest_is_as_fast_as_in_any_division(self) -> None:
        pytest.importorskip("highspy", reason='pip install "pentad[milp]"')
        found = ring_layers(self.METRICS)
        assert found is not None
        every = [c for c in itertools.product(range(9), repeat=3) if sum(c) == 8]
        best = min(slowest_s(self.METRICS, counts) for counts in every)
        assert slowest_s(self.METRICS, found) == pytest.approx(best) == pytest.approx(5.5)

    def test_memory_bounds_the_layers_and_too_little_is_told(self) -> None:
        pytest.importorskip("highspy", reason='pip install "pentad[milp]"')
        tight = dataclasses.replace(self.METRICS, most_layers=(2, 9, 9))
        found = ring_layers(tight)
        assert found is not None
        assert found[0] == 2
        assert ring_layers(dataclasses.replace(self.METRICS, most_layers=(2, 2, 2))) is None
        with pytest.raises(Infeasible) as caught:
            LinguaLinked().plan(asked(box("a", 1e10, 5), box("b", 1e10, 5)))
        assert caught.value.hint

    def test_a_ring_without_a_link_is_refused(self) -> None:
        one_way = dataclasses.replace(PHONES.cluster, default_link=None)
        with pytest.raises(Infeasible, match="needs a link"):
            LinguaLinked().plan(dataclasses.replace(PHONES, cluster=one_way))

    def test_moved_layers_bring_their_keys_and_values_and_no_token_changes(self) -> None:
        pytest.importorskip("highspy", reason='pip install "pentad[milp]"')
        metrics = RingMetrics.of(PHONES, LINE)
        counts = ring_layers(metrics)
        assert counts is not None
        control = RingControl(metrics=metrics, line=LINE)
        world, calm = ring(PHONES, counts, control), ring(PHONES, counts)
        world.slow("p0", 10.0, 4.0)
        for each in (world, calm):
            each.run(4, 30.0, seed=2)
        assert world.moved_bytes > 0
        assert not any(session.rebuilt_tokens for session in world.sessions)
        compare(world, calm)


@pytest.mark.slow
@pytest.mark.row("cm-lingualinked", "effect", claims=(1, 2))
def test_uneven_phones_beat_equal_shares_and_a_slow_one_gives_layers_away(measured: Measure) -> None:
    """Phones whose memory reads differ by up to four, on Wi-Fi of 300 Mbit/s, with weights in 4 bits and
    eight sequences at once; one is throttled to a third after 20 s."""
    pytest.importorskip("highspy", reason='pip install "pentad[milp]"')
    metrics = RingMetrics.of(PHONES, LINE)
    counts = ring_layers(metrics)
    assert counts is not None
    assert [stage.end_layer for stage in UniformPipeline().plan(PHONES).stages] == [6, 12, 18, 24]
    equal = ring(PHONES, (6, 6, 6, 6))
    control = RingControl(metrics=metrics, line=LINE)
    own, still = ring(PHONES, counts, control), ring(PHONES, counts)
    for world in (own, still):
        world.slow("p0", 20.0, 3.0)
    for world in (equal, own, still):
        world.run(8, 120.0, seed=1)
    gain = own.tokens_per_s(5.0, 20.0) / equal.tokens_per_s(5.0, 20.0)
    measured("throughput over equal shares", gain, at_least=1.3, unit="x")
    measured("layers are given away after", control.decided_s[0] - 20.0, at_most=5.0, unit="s")
    later = own.tokens_per_s(90.0, 120.0) / still.tokens_per_s(90.0, 120.0)
    measured("throughput beside a throttled phone over no move", later, at_least=1.1, unit="x")


def test_a_chain_draws_what_a_runner_draws() -> None:
    problem = asked(GPU)
    cost = problem.costs.cost(GPU, SPEC, problem.form, 0, SPEC.layers)
    runner = SimulatedRunner(cost, VirtualClock(), num_blocks=4)  # type: ignore[arg-type]
    for token, context in ((3, 1), (17, 200), (31_999, 5000)):
        sums = runner._sums_to(context + 1)
        wanted = int((token + sums[context] - sums[context - 1]) % SPEC.vocab_size)
        assert drawn_token(token, context, SPEC.vocab_size) == wanted
