"""The scaler jellybean: models of a chain chosen for one accuracy, and the tiers that run them."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.resource.scaling.base import Member, Place, Pool, ScalerInput
from pentad.resource.scaling.jellybean import JellyBean
from pentad.resource.scaling.operator_plan import OperatorModel, OperatorPlan, Worker, plan_operators

Tier = tuple[float, float, int]
"""How much faster than the edge, price of a replica, how many of them."""
TIERS: dict[str, Tier] = {"edge": (1.0, 1.0, 6), "server": (5.0, 6.0, 8), "cloud": (20.0, 30.0, 50)}


def model(
    name: str, quality: float, edge_per_s: float, tiers: tuple[str, ...] = tuple(TIERS)
) -> OperatorModel:
    """A model that an edge device answers so often a second with; a large one does not fit all tiers."""
    workers = tuple(
        Worker(
            name=f"{name}@{t}",
            tier=t,
            capacity=edge_per_s * TIERS[t][0],
            price_per_s=TIERS[t][1],
            most=TIERS[t][2],
        )
        for t in tiers
    )
    return OperatorModel(name=name, quality=quality, workers=workers)


def chain() -> list[list[OperatorModel]]:
    """Speech to text, retrieval, answer: a small, a middle and a large model of each."""
    return [
        [model("base", 0.90, 6.0), model("small", 0.94, 2.5), model("large", 0.97, 0.4, ("server", "cloud"))],
        [model("words", 0.88, 60.0), model("minilm", 0.95, 20.0), model("bge", 0.97, 4.0)],
        [model("0.5b", 0.70, 4.0), model("1.5b", 0.85, 1.2), model("7b", 0.93, 0.25, ("server", "cloud"))],
    ]


def check(plan: OperatorPlan, needs: list[float], quality: float) -> None:
    assert plan.quality == pytest.approx(math.prod(one.model.quality for one in plan.choices))
    assert plan.quality >= quality - 1e-9
    for one, need in zip(plan.choices, needs, strict=True):
        workers = {worker.name: worker for worker in one.model.workers}
        assert sum(workers[name].capacity * count for name, count in one.counts.items()) >= need - 1e-6
        assert all(0 < count <= workers[name].most for name, count in one.counts.items())


@pytest.mark.row("ms-jellybean", "mechanism")
def test_every_plan_keeps_the_accuracy_and_the_load() -> None:
    chance = random.Random(0)
    found = 0
    for _ in range(300):
        quality, needs = chance.uniform(0.5, 0.9), [chance.uniform(1, 60)] * 3
        plan = plan_operators(chain(), needs, quality=quality, beam=chance.choice((1, 2, 8)))
        if plan is not None:
            check(plan, needs, quality)
            found += 1
    assert found > 200
    assert plan_operators(chain(), [1.0] * 3, quality=0.9) is None, "0.875 is the best of all"
    assert plan_operators(chain(), [1e6] * 3, quality=0.5) is None


@pytest.mark.row("ms-jellybean", "mechanism")
def test_the_beam_is_near_the_best_of_all_choices() -> None:
    for quality in (0.55, 0.65, 0.75, 0.8, 0.85):
        needs = [10.0] * 3
        alone = [
            plan_operators([[one] for one in models], needs, quality=0.0)
            for models in itertools.product(*chain())
            if math.prod(one.quality for one in models) >= quality
        ]
        best = min(one.price_per_s for one in alone if one is not None)
        plan = plan_operators(chain(), needs, quality=quality)
        assert plan is not None
        assert plan.price_per_s <= 1.05 * best


@pytest.mark.row("ms-jellybean", "mechanism")
def test_what_passes_between_tiers_keeps_operators_together() -> None:
    def tiers(transfer_price: float) -> set[str]:
        plan = plan_operators(chain(), [6.0] * 3, quality=0.8, transfer_price=transfer_price)
        assert plan is not None
        return {name.split("@")[1] for one in plan.choices for name in one.counts}

    assert len(tiers(0.0)) > 1
    assert len(tiers(100.0)) == 1


@pytest.mark.row("ms-jellybean", "mechanism")
def test_the_scaler_starts_the_variants_that_the_whole_needs() -> None:
    def started(quality: float) -> dict[str, set[str]]:
        def pool(stage: str) -> Pool:
            small = tuple(
                Place(name=f"{stage}-s{i}", slots=4, price_per_s=1.0, quality=0.8) for i in range(4)
            )
            large = tuple(
                Place(name=f"{stage}-l{i}", slots=4, price_per_s=3.0, quality=0.95) for i in range(4)
            )
            return Pool(places=(*small, *large), waiting=6, arrived=6)

        working = JellyBean(quality=quality).start()
        made = working.decide(ScalerInput(pools={"a": pool("a"), "b": pool("b")}, now_s=0.0))
        return {stage: {name[2] for name in made.start if name[0] == stage} for stage in "ab"}

    assert started(0.6) == {"a": {"s"}, "b": {"s"}}
    assert sorted(map(sorted, started(0.75).values())) == [["l"], ["s"]], "one of them is enough"
    assert started(0.9) == {"a": {"l"}, "b": {"l"}}
    assert started(0.99) == {"a": {"l"}, "b": {"l"}}, "out of reach: the best that there is"


def test_what_is_not_needed_is_stopped_and_options_are_checked() -> None:
    members = tuple(
        Member(name=f"m{i}", state="ready", slots=4, price_per_s=1.0, quality=0.9) for i in range(3)
    )
    working = JellyBean(quality=0.5, calm_s=5.0, least=1).start()
    left: tuple[Member, ...] = members
    for second in range(20):
        made = working.decide(ScalerInput(pools={"m": Pool(members=left)}, now_s=float(second)))
        left = tuple(member for member in left if member.name not in made.stop)
    assert len(left) == 1
    with pytest.raises(InvalidRequest, match="quality"):
        JellyBean(quality=2)


def single_tier(needs: list[float], quality: float) -> float | None:
    """Of the cheapest choice of models that one tier by itself can run; None where none can."""
    found = []
    for tier in TIERS:
        kept = [
            [
                OperatorModel(name=one.name, quality=one.quality, workers=workers)
                for one in models
                if (workers := tuple(w for w in one.workers if w.tier == tier))
            ]
            for models in chain()
        ]
        plan = plan_operators(kept, needs, quality=quality)
        if plan is not None:
            found.append(plan.price_per_s)
    return min(found, default=None)


@pytest.mark.row("ms-jellybean", "effect", negative=True)
def test_three_operators_cost_less_than_on_the_best_single_tier_yet_not_by_a_quarter(
    measured: Measure,
) -> None:
    """Over loads and accuracies alike. A quarter is saved where the cheap tier is too small or cannot reach
    the accuracy by itself; where it can do all, it is the plan, and where the largest model is needed for
    most of the work, there is little else to save."""
    ratios = []
    for need, quality in itertools.product((3.0, 6.0, 10.0, 20.0), (0.65, 0.75, 0.8, 0.85)):
        needs = [need] * 3
        plan, alone = (
            plan_operators(chain(), needs, quality=quality, transfer_price=0.05),
            single_tier(needs, quality),
        )
        assert plan is not None
        assert alone is not None
        check(plan, needs, quality)
        ratios.append(plan.price_per_s / alone)
    measured("cost of that of the best single tier, best case", min(ratios), at_most=0.75, unit="x")
    measured("cost of that of the best single tier, mean", sum(ratios) / len(ratios), at_most=1.0, unit="x")
