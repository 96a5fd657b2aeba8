"""The scaler edgeadaptor: one-slot minima, rounding by draws, and what it costs on a real load."""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.resource.placement.highs import open_highs
from pentad.resource.scaling.base import Member, Place, Pool, ScalerInput
from pentad.resource.scaling.edgeadaptor import EdgeAdaptor
from pentad.resource.scaling.recourse import Array, SlotCosts, regularized, rounded

AZURE = pathlib.Path(__file__).parents[3] / "shared" / "data" / "azure-llm-2023-conv.csv"
SLOT_S = 10.0


def costs(start_s: float = 120.0) -> SlotCosts:
    """A small and a large variant, in tokens per second; prices per second."""
    price = np.array([1.0, 2.6])
    return SlotCosts(
        capacity=np.array([60.0, 200.0]),
        running=SLOT_S * price,
        starting=start_s * price,
        most=np.array([40.0, 20.0]),
    )


@pytest.mark.row("ms-edgeadaptor", "mechanism")
def test_a_slot_is_the_minimum_of_cost_and_relative_entropy() -> None:
    """Against random mixes that hold the need too."""
    known, before = costs(), np.array([3.0, 1.0])
    found = regularized(known, before, 900.0, eagerness=0.5, near=0.1)

    def value(mix: Array) -> float:
        near, past = mix + 0.1, before + 0.1
        return float(known.running @ mix + known.starting / 0.5 @ (near * np.log(near / past) - mix))

    assert known.capacity @ found == pytest.approx(900.0, rel=1e-6)
    chance = np.random.default_rng(0)
    for _ in range(2000):
        other = np.clip(found + chance.normal(0, 1, 2), 0, known.most)
        if known.capacity @ other >= 900.0:
            assert value(other) >= value(found) - 1e-6


@pytest.mark.row("ms-edgeadaptor", "mechanism")
def test_capacity_goes_back_the_slower_the_longer_a_start_takes() -> None:
    left = []
    for start_s in (30.0, 120.0):
        mix = np.array([0.0, 8.0])
        for _ in range(20):
            mix = regularized(costs(start_s), mix, 200.0, eagerness=0.25, near=0.1)
        left.append(mix[1])
    assert left[0] < left[1] / 2 < 8


@pytest.mark.row("ms-edgeadaptor", "mechanism")
def test_fractions_are_rounded_by_draws_that_keep_the_mean_and_the_need() -> None:
    known, mix = costs(), np.array([2.3, 1.6])
    chance = np.random.default_rng(1)
    found = np.array([rounded(known, mix, 0.0, chance.random(2)) for _ in range(3000)])
    assert found.mean(axis=0) == pytest.approx(mix, abs=0.05)
    for _ in range(200):
        assert known.capacity @ rounded(known, mix, 458.0, chance.random(2)) >= 458.0


@pytest.mark.row("ms-edgeadaptor", "mechanism")
def test_what_a_wrong_answer_is_worth_changes_the_variant() -> None:
    def started(error_price: float) -> str:
        small = tuple(Place(name=f"s{i}", slots=4, price_per_s=1.0, quality=0.6) for i in range(4))
        large = tuple(Place(name=f"l{i}", slots=4, price_per_s=1.5, quality=0.9) for i in range(4))
        working = EdgeAdaptor(error_price=error_price, eagerness=5.0).start()
        pool = Pool(places=(*small, *large), waiting=6, arrived=6)
        made = working.decide(ScalerInput(pools={"m": pool}, now_s=0.0))
        return "".join(sorted({name[0] for name in made.start}))

    assert started(0.0) == "s"
    assert started(5.0) == "l"


def test_replicas_that_are_not_needed_stop_after_a_while_and_options_are_checked() -> None:
    members = tuple(Member(name=f"m{i}", state="ready", slots=4, price_per_s=1.0) for i in range(6))
    working, sizes = EdgeAdaptor(interval_s=10.0).start(), []
    for slot in range(200):
        # Only at first is there a place that says what a start takes.
        spare = () if slot else (Place(name="p", slots=4, price_per_s=1.0, cold_start_s=120.0),)
        pool = Pool(members=members, places=spare)
        made = working.decide(ScalerInput(pools={"m": pool}, now_s=10.0 * slot))
        members = tuple(member for member in members if member.name not in made.stop)
        sizes.append(len(members))
    assert sizes[10] >= 4
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= 1
    with pytest.raises(InvalidRequest, match="eagerness"):
        EdgeAdaptor(eagerness=0)


def load() -> list[float]:
    """Tokens per second to be generated in each slot of an hour of real traffic."""
    with AZURE.open(encoding="utf-8") as file:
        rows = [
            (datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp(), int(row["GeneratedTokens"]))
            for row in csv.DictReader(file)
        ]
    found = [0.0] * (int((rows[-1][0] - rows[0][0]) // SLOT_S) + 1)
    for at_s, tokens in rows:
        found[int((at_s - rows[0][0]) // SLOT_S)] += tokens / SLOT_S
    return found


def adapted(known: SlotCosts, needs: Sequence[float], seed: int) -> list[Array]:
    scaler, draws = EdgeAdaptor(), np.random.default_rng(seed).random(2)
    mix, found = np.zeros(2), []
    for need in needs:
        mix = regularized(known, mix, need, eagerness=scaler.eagerness, near=scaler.near)
        found.append(np.array(rounded(known, mix, need, draws), dtype=float))
    return found


def greedy(known: SlotCosts, need: float) -> Array:
    """The cheapest whole mix of one slot by itself, of all."""
    tried = []
    for small in range(int(known.most[0]) + 1):
        large = max(0, math.ceil((need - small * known.capacity[0]) / known.capacity[1] - 1e-9))
        if large <= known.most[1]:
            mix = np.array([small, large], dtype=float)
            tried.append((float(known.running @ mix), small, mix))
    return min(tried, key=lambda one: one[:2])[2]


def least(known: SlotCosts, needs: Sequence[float]) -> float:
    """A bound below what anybody pays who knows all slots: fractions of replicas, by HiGHS."""
    model, slots, kinds = open_highs("test", gap=0.0, seconds=120.0), len(needs), 2
    for _ in needs:
        for kind in range(kinds):
            model.addVar(0.0, float(known.most[kind]))
    for _ in range(slots * kinds):
        model.addVar(0.0, math.inf)
    for slot, need in enumerate(needs):
        here = [slot * kinds + kind for kind in range(kinds)]
        for kind, place in enumerate(here):
            started = slots * kinds + place
            model.changeColCost(place, float(known.running[kind]))
            model.changeColCost(started, float(known.starting[kind]))
            terms = [started, place, *([place - kinds] if slot else [])]
            factors = np.array([1.0, -1.0, 1.0][: len(terms)])
            model.addRow(0.0, math.inf, len(terms), np.array(terms, dtype=np.int32), factors)
        model.addRow(need, math.inf, kinds, np.array(here, dtype=np.int32), known.capacity)
    model.run()
    return float(model.getInfo().objective_function_value)


@pytest.mark.row("ms-edgeadaptor", "effect", claims=(1,))
@pytest.mark.skipif(not AZURE.exists(), reason=f"there is no {AZURE.name} in shared/data")
def test_on_real_traffic_starts_are_saved_and_the_optimum_is_near(measured: Measure) -> None:
    """Slots of ten seconds, starts of two minutes; the worst of five seeds counts."""
    pytest.importorskip("highspy")
    known, needs = costs(), load()
    optimum = least(known, needs)
    ours = max(known.total(adapted(known, needs, seed)) for seed in range(5))
    slotwise = known.total([greedy(known, need) for need in needs])
    measured("cost of that of the offline optimum", ours / optimum, at_most=1.5, unit="x")
    measured("cost of that of the greedy choice per slot", ours / slotwise, at_most=0.8, unit="x")
