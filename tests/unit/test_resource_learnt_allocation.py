"""The learnt allocation: learnt again from its seed, beside the best static split, and as a scaler."""

from __future__ import annotations

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.resource.scaling.base import Member, Place, Pool, ScalerInput
from pentad.resource.scaling.learnt import WEIGHTS, Rl, demand_of
from pentad.resource.simulator.slot_learning import learn, policy
from pentad.resource.simulator.slot_mixes import Allocation, Array, Mix, mean_in_system, split

SERVICE_S = (4.0, 3.0, 6.0)


def mix(*phases: tuple[float, float, float]) -> Mix:
    """A mix whose classes take these shares of the slots, phase by phase."""
    rates = tuple(
        tuple(16 * share / each for share, each in zip(phase, SERVICE_S, strict=True)) for phase in phases
    )
    return Mix(rates_per_s=rates, service_s=SERVICE_S)


HEAVY, EVEN, LATE = mix((0.5, 0.15, 0.15)), mix((0.27, 0.27, 0.26)), mix((0.1, 0.2, 0.5))
SHIFTING = mix((0.6, 0.1, 0.1), (0.1, 0.6, 0.1), (0.1, 0.1, 0.6))


def fixed(parts: tuple[int, ...]) -> Allocation:
    def allocate(queue: Array, coming: Array, now: Array) -> Array:
        return np.broadcast_to(np.array(parts, np.float64), queue.shape).copy()

    return allocate


def best_static(found: Mix, seed: int) -> tuple[float, tuple[int, int, int]]:
    """The fewest requests in the system over all splits of the slots that hold four fifths of each class's
    work."""
    work = np.array(found.rates_per_s).mean(axis=0) * np.array(found.service_s)
    splits = [
        (a, b, 16 - a - b)
        for a in range(1, 15)
        for b in range(1, 16 - a)
        if all(part >= 0.8 * need for part, need in zip((a, b, 16 - a - b), work, strict=True))
    ]
    return min(
        (float(mean_in_system(found, fixed(each), seed=seed, episodes=6).mean()), each) for each in splits
    )


class TestWorld:
    def test_slots_are_shared_by_largest_remainder(self) -> None:
        assert split(np.array([[1.0, 1.0, 2.0], [0.0, 0.0, 0.0]]), 5).tolist() == [[1, 1, 3], [2, 2, 1]]

    def test_a_class_with_room_has_about_what_arrives_while_one_is_served(self) -> None:
        one = Mix(rates_per_s=((1.0,),), service_s=(4.0,), slots=64, seconds=2000)
        held = mean_in_system(one, fixed((64,)), seed=3, episodes=4).mean()
        assert held == pytest.approx(3.0, rel=0.15), (
            "Little's law; whoever ends in a second is not counted in it"
        )

    @pytest.mark.row("ag-rl-alloc", "mechanism")
    def test_slots_that_change_their_class_are_of_no_use_for_a_while(self) -> None:
        def swing(queue: Array, coming: Array, now: Array) -> Array:
            return now[:, ::-1].copy()

        found = Mix(rates_per_s=((1.0, 1.0),), service_s=(3.0, 3.0), slots=9)
        kept = mean_in_system(found, fixed((5, 4)), seed=1, episodes=4).mean()
        assert mean_in_system(found, swing, seed=1, episodes=4).mean() > kept


class TestPolicy:
    @pytest.mark.row("ag-rl-alloc", "mechanism")
    def test_more_requests_ask_for_more_devices(self) -> None:
        now = np.array([2.0, 2.0])
        few, many = demand_of(WEIGHTS, np.array([1.0, 4.0]), np.array([1.0, 1.0]), now)
        assert many > few

    @pytest.mark.row("ag-rl-alloc", "mechanism")
    def test_too_few_devices_go_to_who_has_most_and_everyone_has_one(self) -> None:
        def pool(model: str, waiting: int) -> Pool:
            return Pool(
                waiting=waiting, arrived=waiting, places=tuple(Place(name=f"{model}{i}") for i in range(6))
            )

        made = Rl().start().decide(ScalerInput(pools={"a": pool("a", 40), "b": pool("b", 2)}, now_s=0.0))
        names = [name[0] for name in made.start]
        assert len(names) == 6
        assert names.count("a") > names.count("b") >= 1
        assert {decision.constraint for decision in made.decisions} == {"devices"}

    def test_where_there_is_enough_everyone_has_what_it_needs_and_the_rest_stays_free(self) -> None:
        idle = Pool(members=(Member(name="m", state="ready"),), places=(Place(name="p"),))
        made = Rl(calm_s=0.0).start().decide(ScalerInput(pools={"a": idle}, now_s=0.0))
        assert (made.start, made.stop) == ((), ("m",))

    @pytest.mark.parametrize("options", [{"target": 0}, {"calm_s": -1}, {"interval_s": 0}], ids=str)
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is "):
            Rl(**options)  # type: ignore[arg-type]


@pytest.mark.thorough
@pytest.mark.row("ag-rl-alloc", "effect")
def test_learning_goes_down_and_gives_the_same_weights_again(measured: Measure) -> None:
    found = learn(0)
    print(f"\ncurve {[round(each, 2) for each in found.curve]}")
    assert found.weights == WEIGHTS
    measured("cost of the last round over the first", found.curve[-1] / found.curve[0], at_most=0.9, unit="x")


@pytest.mark.thorough
@pytest.mark.row("ag-rl-alloc", "effect", claims=(1,))
@pytest.mark.parametrize("name", ["heavy", "even", "late", "shifting"])
def test_the_learnt_allocation_is_not_behind_the_best_static_split(name: str, measured: Measure) -> None:
    # The static split is the best of all on the very episodes that it is judged by: seeds 71 and 72, of which
    # nothing was learnt. Developed on seed 1.
    found = {"heavy": HEAVY, "even": EVEN, "late": LATE, "shifting": SHIFTING}[name]
    ours = static = 0.0
    for seed in (71, 72):
        held, parts = best_static(found, seed)
        static += held
        ours += float(mean_in_system(found, policy(WEIGHTS, 16), seed=seed, episodes=6).mean())
    print(f"\n{name}: in the system {static / 2:.2f} with the best split {parts}, {ours / 2:.2f} learnt")
    limit = 1.0 if name == "shifting" else 1.05
    measured(
        f"requests in the system over the best static split, {name}", ours / static, at_most=limit, unit="x"
    )
