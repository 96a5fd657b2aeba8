"""Experts under a bound of memory: what stays, what is brought ahead, and what is never different."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from expert_traces import skewed_trace
from pentad.choice import Choice, build
from pentad.errors import Infeasible
from pentad.execution.expert_cache.base import ExpertCosts, ExpertPolicy, Mixture
from pentad.execution.expert_cache.popular import Popular
from pentad.execution.expert_cache.recent import Recent
from pentad.execution.expert_cache.replay import RoutedLayer, RoutedStep, SimulatedDevice, replay
from pentad.execution.expert_cache.store import ExpertStore
from pentad.execution.expert_cache.traced import Traced
from pentad.registry import known

COSTS = ExpertCosts(copy_bytes_per_s=1e3, here_s=0.001, there_s=0.03, there_row_s=0.01)


def mixture(room: int, *, layers: int = 3, experts: int = 8, nbytes: int = 100) -> Mixture:
    return Mixture(
        counts=dict.fromkeys(range(layers), experts),
        nbytes=dict.fromkeys(range(layers), nbytes),
        room_bytes=room * nbytes,
    )


def policy(name: str) -> ExpertPolicy:
    return build("expert_cache", Choice(name=name))  # type: ignore[no-any-return]


def steps(*used: Sequence[Sequence[int]], guessed: tuple[int, ...] = ()) -> list[RoutedStep]:
    """Steps as the experts of each layer, one row each."""
    return [
        RoutedStep(
            layers=tuple(
                RoutedLayer(layer=i, rows=dict.fromkeys(numbers, 1), guessed=guessed)
                for i, numbers in enumerate(step)
            ),
            started=at == 0,
        )
        for at, step in enumerate(used)
    ]


@pytest.mark.parametrize("name", known("expert_cache"))
class TestEveryPolicy:
    def test_books_agree_and_the_bound_holds(self, name: str) -> None:
        wide = mixture(9)
        device = SimulatedDevice(wide, COSTS)
        store = ExpertStore(wide, policy(name), device, COSTS)
        dice = random.Random(1)
        for step in range(60):
            store.begin(started=step % 7 == 0)
            for layer in range(3):
                rows = {number: dice.randint(1, 4) for number in dice.sample(range(8), dice.randint(1, 8))}
                guessed = dice.sample(range(8), 3) if store.guesses and layer < 2 else []
                there = store.counts.there
                store.use(layer, rows, guessed)
                here = store.resident & {(layer, number) for number in rows}
                assert len(here) >= len(rows) - (store.counts.there - there), "what is computed is there"
                assert len(store.resident) <= 9
        counts = store.counts
        assert counts.peak_bytes <= wide.room_bytes
        assert counts.uses >= counts.hits + counts.late + counts.there
        assert counts.read_bytes >= 100 * (counts.uses - counts.hits - counts.late - counts.there)
        assert counts.ahead_bytes <= counts.read_bytes

    def test_with_room_for_all_every_expert_is_read_once(self, name: str) -> None:
        trace = skewed_trace(layers=3, experts=8, per_token=2, tokens=200, seed=2)
        costs = ExpertCosts(copy_bytes_per_s=1e3, here_s=0.001, there_s=float("inf"))
        counts = replay(trace, mixture(24), policy(name), costs).counts
        used = {(routed.layer, number) for step in trace for routed in step.layers for number in routed.rows}
        assert counts.read_bytes <= 24 * 100
        assert counts.uses - counts.hits - counts.late <= len(used)

    def test_a_room_that_holds_less_than_a_layer_is_refused(self, name: str) -> None:
        with pytest.raises(Infeasible, match="set expert_memory to 1MiB or more"):
            replay([], mixture(7), policy(name), COSTS)


@pytest.mark.row("moe-offload-lru", "mechanism")
def test_the_expert_used_longest_ago_gives_way_within_its_layer() -> None:
    wide = mixture(8, layers=2, experts=8)
    store = ExpertStore(wide, Recent(ahead=0), SimulatedDevice(wide, COSTS), COSTS)
    store.begin(started=True)
    for layer in range(2):
        for number in (0, 1, 2, 3):
            store.use(layer, {number: 1})
    store.use(1, {0: 1})
    store.use(1, {5: 1})
    assert store.resident == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3), (1, 5)}


@pytest.mark.row("moe-offload-lru", "mechanism")
def test_a_right_guess_arrives_while_the_layer_in_front_is_computed() -> None:
    trace = steps([[0], [4]], [[1], [4]])
    guessed = [
        RoutedStep(
            layers=(RoutedLayer(layer=0, rows={0: 1}, guessed=(4,)), RoutedLayer(layer=1, rows={4: 1}))
        )
    ]
    costs = ExpertCosts(copy_bytes_per_s=1e3, here_s=0.2, there_s=float("inf"))
    found = replay(guessed, mixture(8), Recent(ahead=1), costs)
    assert (found.counts.hits, found.counts.late, found.counts.recall) == (1, 0, 1.0)
    assert found.counts.stall_s == pytest.approx(0.1)
    assert replay(trace[:1], mixture(8), Recent(ahead=0), costs).counts.stall_s == pytest.approx(0.2)


def test_what_is_urgent_passes_what_was_only_guessed() -> None:
    device = SimulatedDevice(mixture(8), COSTS)
    crossing, later = (device.bring((1, number), ahead=True) for number in range(2))
    urgent = device.bring((0, 0), ahead=False)
    assert urgent.wait() == pytest.approx(0.2), "behind the one that is crossing"
    assert (crossing.here, later.here) == (True, False)
    later.wait()
    assert device.now_s == pytest.approx(0.3)


@pytest.mark.row("moe-fiddler", "mechanism", claims=(2,))
def test_each_missing_expert_is_computed_on_the_cheaper_side() -> None:
    run = Popular().start(mixture(8))
    # Brought: 0.1 s on its way and 0.001 s there; where it lies: 0.03 s, and 0.01 s for each further row.
    sides = [run.side((0, 0), rows, COSTS) for rows in range(1, 12)]
    assert sides == ["there"] * 8 + ["here"] * 3
    for rows in range(1, 65):
        taken = {"here": COSTS.copy_s(100) + COSTS.here_s, "there": COSTS.at_there_s(rows)}
        assert taken[run.side((0, 0), rows, COSTS)] == min(taken.values())
    assert Popular(there=False).start(mixture(8)).side((0, 0), 1, COSTS) == "here"


@pytest.mark.row("het-moe-cpu-gpu", "mechanism")
def test_rare_experts_take_nobody_s_place() -> None:
    wide = mixture(8, layers=1, experts=8)
    costs = ExpertCosts(copy_bytes_per_s=1e3, here_s=0.001, there_s=1.0)
    assert replay(steps([[0]]), wide, Popular(), costs).counts.there == 0
    assert replay(steps([[0]]), wide, Popular(), COSTS).counts.there == 1


@pytest.mark.row("het-moe-cpu-gpu", "mechanism")
def test_an_expert_that_has_become_popular_is_brought() -> None:
    trace = steps(*[[[0]]] * 6)
    counts = replay(trace, mixture(8, layers=1), Popular(), COSTS).counts
    assert counts.there == 5, "it is ranked after four steps, and brought while it is computed"
    assert counts.hits + counts.late == 1
    assert counts.read_bytes == counts.ahead_bytes == 100


@pytest.mark.row("moe-infinity", "mechanism")
def test_a_text_like_an_earlier_one_has_its_experts_brought() -> None:
    code, prose = [[0], [1], [2]], [[5], [6], [7]]
    run = Traced(ahead=2).start(mixture(8))
    for text in (code, prose):
        for at in range(3):
            run.begin(started=at == 0)
            for layer, numbers in enumerate(text):
                run.used(layer, dict.fromkeys(numbers, 1))
    run.begin(started=True)
    run.used(0, {0: 1})
    assert list(run.ahead(0, {0: 1}, ())) == [(1, 1), (2, 2)]
    assert run.victim(1, [(0, 0), (1, 1), (1, 6)]) == (1, 6)


@pytest.mark.row("moe-edgemoe", "mechanism")
def test_experts_that_have_followed_are_brought() -> None:
    from pentad.execution.expert_cache.chained import Chained

    run = Chained(ahead=1).start(mixture(8))
    for first, then in ((0, 3), (0, 3), (1, 5), (0, 4)):
        run.begin(started=False)
        run.used(0, {first: 1})
        run.used(1, {then: 1})
    run.begin(started=False)
    assert list(run.ahead(0, {0: 1}, ())) == [(1, 3)]
    assert list(run.ahead(0, {1: 1}, ())) == [(1, 5)]
    assert list(run.ahead(0, {7: 1}, ())) == [], "nothing is known of it"
    assert list(run.ahead(2, {0: 1}, ())) == []
