"""Moving devices: radio by the formulas, parts of machines as sites, batteries that last, cut models."""

from __future__ import annotations

import dataclasses
import math
import statistics

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.choice import Choice, build
from pentad.errors import Infeasible, InvalidRequest, UnknownName
from pentad.resource.offloading import variants
from pentad.resource.offloading.base import (
    Offloading,
    OffloadInput,
    OffloadTask,
    ScoredOffload,
    Site,
    SiteKind,
    estimate,
    permitted,
)
from pentad.resource.offloading.mobile_world import MobileWorld, Placed, play
from pentad.resource.offloading.radio import NOISE_W_PER_HZ, path_gain, rate_bits_per_s
from pentad.resource.offloading.scenarios import SCENARIOS, Scenario, Shift, scenario

TASK = OffloadTask(id="r", prompt_tokens=100, answer_tokens=10, prompt_bytes=1_000_000)
HERE = Site(
    name="here", prompt_token_s=0.01, token_s=0.1, energy_per_prompt_token_j=0.05, energy_per_token_j=0.5
)
EDGE = Site(
    name="edge",
    kind="edge",
    bytes_per_s=1e6,
    latency_s=0.01,
    prompt_token_s=1e-3,
    token_s=1e-2,
    price_per_s=2.0,
    send_w=1.5,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Only(ScoredOffload):
    """The least cost among the whole or partial machines of one kind, without cutting the model."""

    kind: SiteKind
    world: Scenario
    name = "only"

    def score(self, task: OffloadTask, site: Site) -> float:
        away = site.kind != self.kind or site.layers_here > 0
        return 1e6 * away + self.world.weights.of(task, estimate(task, site))


def policy(name: str, **options: object) -> Offloading:
    return build("offload", Choice(name=name, options=options)).start()  # type: ignore[no-any-return]


def costs(world: Scenario, working: Offloading, seeds: range) -> float:
    return statistics.fmean(each.cost for seed in seeds for each in play(world, working, seed))


class TestRadio:
    def test_path_loss_and_rate_are_those_of_the_formulas(self) -> None:
        assert 10 * math.log10(path_gain(1000)) == pytest.approx(-128.1)
        assert 10 * math.log10(path_gain(100)) == pytest.approx(-128.1 + 37.6)
        assert path_gain(0) == path_gain(10)
        gain = 3 * NOISE_W_PER_HZ * 1e6  # of a watt: three times the noise
        assert rate_bits_per_s(1e6, 1.0, gain) == pytest.approx(2e6)
        noise = NOISE_W_PER_HZ * 1e6
        assert rate_bits_per_s(1e6, 1.0, gain, interference_w=2 * noise) == pytest.approx(1e6)
        assert rate_bits_per_s(0.0, 1.0, gain) == 0
        with pytest.raises(InvalidRequest, match="distance_m"):
            path_gain(-1.0)


class TestVariants:
    def test_a_slower_clock_takes_longer_and_less_energy(self) -> None:
        slow = estimate(TASK, variants.clocked(HERE, 0.5))
        fast = estimate(TASK, HERE)
        assert slow.completion_s == pytest.approx(2 * fast.completion_s)
        assert slow.energy_j == pytest.approx(fast.energy_j / 4)
        assert fast.energy_j == pytest.approx(100 * 0.05 + 10 * 0.5)

    def test_a_part_of_a_machine_is_slower_and_costs_the_same_for_the_same_work(self) -> None:
        quarter = variants.part(EDGE, 0.25, ready_s=3.0)
        whole, found = estimate(TASK, EDGE), estimate(TASK, quarter)
        assert (quarter.name, quarter.machine) == ("edge/0.25", "edge")
        assert found.prompt_s == pytest.approx(4 * whole.prompt_s)
        assert found.wait_s == 3.0
        assert found.cost == pytest.approx(whole.cost)

    def test_a_cut_model_sends_its_activations_and_computes_on_both_sides(self) -> None:
        cut = variants.Cut(layers=0.25, prompt_bytes=200_000, token_bytes=1000)
        (split,) = variants.splits(HERE, EDGE, [cut])
        found = estimate(TASK, split)
        assert split.layers_here == 0.25
        assert found.send_s == pytest.approx(0.2 + 2 * 0.01)
        assert found.prompt_s == pytest.approx(100 * (0.25 * 0.01 + 0.75 * 1e-3))
        assert found.answer_s == pytest.approx(10 * (0.25 * 0.1 + 0.75 * 1e-2 + 0.001 + 0.02))
        assert found.energy_j == pytest.approx(0.2 * 1.5 + 0.25 * 10 + 10 * 0.001 * 1.5)
        for wrong in ({"layers": 0.0}, {"layers": 1.5}, {"token_bytes": -1}):
            with pytest.raises(InvalidRequest, match=next(iter(wrong))):
                variants.Cut(**{"layers": 0.5, "prompt_bytes": 1, "token_bytes": 1, **wrong})


class TestWorld:
    @pytest.mark.parametrize("name", SCENARIOS)
    def test_equal_seeds_make_equal_episodes_and_every_site_can_be_taken(self, name: str) -> None:
        world = scenario(name, requests=40)

        def walk(seed: int) -> list[Placed]:
            episode, dice, found = MobileWorld(world, seed), np.random.default_rng(1), []
            while (state := episode.state) is not None:
                assert len({site.name for site in state.sites}) == len(state.sites)
                found.append(episode.step(state.sites[int(dice.integers(len(state.sites)))].name))
            return found

        assert walk(3) == walk(3) != walk(4)
        assert len(walk(3)) == 40

    def test_what_an_edge_machine_does_not_say_makes_requests_late(self) -> None:
        plain = scenario("mobile-edge", requests=30)
        slow = dataclasses.replace(plain, shift=Shift(at=0.0, slower=(8.0, 8.0, 8.0)))
        told, real = (
            MobileWorld(world, 5).step("edge-0/1" if "edge-0/1" in names(world) else "edge-1/1")
            for world in (plain, slow)
        )
        assert real.completion_s > told.completion_s
        assert real.energy_j == told.energy_j

    def test_a_model_that_an_edge_machine_lacks_is_loaded_once(self) -> None:
        world = MobileWorld(scenario("agent-cache", requests=300), 0)
        loads = 0
        while (state := world.state) is not None:
            edge = next(site for site in state.sites if site.name == "edge-0/1")
            held, model = list(world._held[0]), world._model
            world.step("edge-0/1")
            assert world._held[0][-1] == model
            assert len(world._held[0]) == 2
            loads += model not in held
            assert edge.kind == "edge"
        assert 0 < loads < 300

    def test_an_unknown_scenario_is_named_with_those_that_there_are(self) -> None:
        with pytest.raises(UnknownName, match="mobile-edge"):
            scenario("mobile-edg")
        with pytest.raises(InvalidRequest, match="reach"):
            scenario("mobile-edge", reach=9)


def names(world: Scenario) -> set[str]:
    state = MobileWorld(world, 5).state
    assert state is not None
    return {site.name for site in state.sites}


class TestEnergyHarvest:
    @pytest.mark.row("ra-chang", "mechanism")
    def test_energy_is_dear_while_the_battery_is_low_and_free_at_its_level(self) -> None:
        near = dataclasses.replace(EDGE, price_per_s=0.0)
        here = dataclasses.replace(HERE, prompt_token_s=0.005, token_s=0.05)

        def chosen(battery_j: float) -> str:
            state = OffloadInput(task=TASK, sites=(here, near), now_s=0.0, battery_j=battery_j)
            return policy("energy-harvest", v=10.0, level_j=40.0, energy_per_j=0.0).choose(state)[0]

        # Here: 1 s and 10 J; there: 1.22 s, 1.5 J. 10 * (0.122 - 0.1) against 8.5 J times what is lacking.
        assert chosen(40.0) == "here"
        assert chosen(39.99) == "here"  # 0.22 against 0.085
        assert chosen(39.0) == "edge"  # 0.22 against 8.5

    @pytest.mark.row("ra-chang", "mechanism", claims=(1,))
    def test_a_battery_is_never_below_zero(self) -> None:
        state = OffloadInput(task=TASK, sites=(HERE, EDGE), now_s=0.0, battery_j=2.0)
        assert permitted(state) == ((EDGE,), "battery")
        with pytest.raises(Infeasible, match=r"the battery has 1 J, and the least .* takes is 1\.5 J"):
            permitted(dataclasses.replace(state, battery_j=1.0))
        poor = scenario("harvest", battery_j=4.0, harvest_w=0.05)
        placed = [each for seed in (0, 1) for each in play(poor, policy("energy-harvest", v=1e6), seed)]
        left = [each.battery_j for each in placed if each.battery_j is not None]
        assert len(left) == len(placed)
        assert min(left) >= 0
        assert any(each.site is None for each in placed), "the harvest is too much to show anything"

    @pytest.mark.parametrize("option", ["level_j", "v"])
    def test_impossible_options_are_refused(self, option: str) -> None:
        with pytest.raises(InvalidRequest, match=f"{option} is "):
            policy("energy-harvest", **{option: 0.0})


@pytest.mark.thorough
@pytest.mark.row("ra-chang", "effect", claims=(1, 2))
@pytest.mark.parametrize("harvest_w", [0.2, 0.3, 0.45])
def test_the_cost_is_near_that_of_the_best_weight_in_hindsight(harvest_w: float, measured: Measure) -> None:
    """The default weight was chosen at 0.3 W with seeds 20 to 22; these seeds and other harvests are new."""
    world, seeds = scenario("harvest", harvest_w=harvest_w), range(60, 62)
    tuned = {v: costs(world, policy("energy-harvest", v=v), seeds) for v in (4.0, 20.0, 500.0, 2500.0)}
    placed = [each for seed in seeds for each in play(world, policy("energy-harvest"), seed)]
    tuned[100.0] = ours = statistics.fmean(each.cost for each in placed)
    print(f"\n{harvest_w} W: tuned {tuned}, ours {ours:.3f}")
    left = [each.battery_j for each in placed if each.battery_j is not None]
    measured(f"least energy in a battery, {harvest_w} W, 2 seeds", min(left), at_least=0.0, unit="J")
    best = min(tuned.values())
    measured(f"cost over the best weight in hindsight, {harvest_w} W, 2 seeds", ours / best, at_most=1.1)


class TestVehicularSplit:
    @pytest.mark.row("cm-6g-vehicular", "mechanism")
    def test_the_cut_moves_with_the_channel(self) -> None:
        cuts = [variants.Cut(layers=0.1, prompt_bytes=100_000, token_bytes=100)]

        def chosen(bytes_per_s: float) -> str:
            there = dataclasses.replace(EDGE, bytes_per_s=bytes_per_s, price_per_s=0.1)
            sites = (HERE, there, *variants.splits(HERE, there, cuts))
            working = policy("vehicular-split", energy_per_j=0.0)
            return working.choose(OffloadInput(task=TASK, sites=sites, now_s=0.0))[0]

        # Here 2 s. There 0.22 s and sending: 1 MB whole, or 0.1 MB behind a tenth of the layers, with 0.38 s.
        assert chosen(1e8) == "edge"
        assert chosen(1e6) == "edge|0.1"
        assert chosen(3e4) == "here"

    def test_impossible_options_are_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="money is "):
            policy("vehicular-split", money=-1.0)


@pytest.mark.thorough
# Claim 1 is not held: at 0.5 requests a second, without queues, cuts cost but 13% less than the road side.
@pytest.mark.row("cm-6g-vehicular", "effect", claims=(2,))
@pytest.mark.parametrize("rate_per_s", [1.5, 3.0])
def test_moving_cuts_cost_less_than_all_here_and_all_at_the_road_side(
    rate_per_s: float, measured: Measure
) -> None:
    world, seeds = scenario("vehicles", rate_per_s=rate_per_s), range(30, 32)
    here, there = (costs(world, Only(kind=kind, world=world).start(), seeds) for kind in ("device", "edge"))
    ours = costs(world, policy("vehicular-split"), seeds)
    print(f"\n{rate_per_s}/s: all here {here:.3f}, all at the road side {there:.3f}, cut {ours:.3f}")
    measured(f"cost over all here, {rate_per_s}/s, 2 seeds", ours / here, at_most=0.8)
    measured(f"cost over all at the road side, {rate_per_s}/s, 2 seeds", ours / there, at_most=0.8)
    moved = _layers_by_channel(world)
    measured(f"layers here, worst over best third of channels, {rate_per_s}/s", moved, at_least=1.2, unit="x")


def _layers_by_channel(world: Scenario) -> float:
    """Mean share of the layers in the vehicle on bad channels, over the same on good ones."""
    found = []
    for seed in range(30, 32):
        episode, working = MobileWorld(world, seed), policy("vehicular-split")
        while (state := episode.state) is not None:
            chosen = working.choose(state)[0]
            site = next(each for each in state.sites if each.name == chosen)
            rate = max(each.bytes_per_s or 0.0 for each in state.sites)
            found.append((rate, 1.0 if site.kind == "device" else site.layers_here))
            episode.step(chosen)
    found.sort()
    third = len(found) // 3
    bad, good = (statistics.fmean(layers for _, layers in part) for part in (found[:third], found[-third:]))
    return bad / max(good, 1e-3)
