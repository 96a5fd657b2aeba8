"""INFaaS: the cheapest mix of a model's variants, upgrades before machines, and how near to the exact mix."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.resource.scaling.base import Host, Member, Place, Pool, ScalerInput
from pentad.resource.scaling.infaas import Infaas
from pentad.resource.scaling.speed import Speed
from pentad.resource.scaling.variants import Variant, cheapest_mix, mix_cost

SMALL = Speed(prompt_token_s=0.0, alone_s=0.5, full_s=0.5)
"""With two slots and answers of one token: four requests a second."""
LARGE = Speed(prompt_token_s=0.0, alone_s=0.2, full_s=0.2)
"""With four slots: twenty a second."""


def small(name: str, **changes: object) -> dict[str, object]:
    return {"name": name, "slots": 2, "speed": SMALL, "price_per_s": 1.0, "host": "m1"} | changes


def large(name: str, **changes: object) -> dict[str, object]:
    return {"name": name, "slots": 4, "speed": LARGE, "price_per_s": 3.0, "host": "m1"} | changes


def member(kind: dict[str, object], running: int = 0) -> Member:
    return Member(**kind, state="ready", running=running)  # type: ignore[arg-type]


def place(kind: dict[str, object]) -> Place:
    return Place(**kind, cold_start_s=2.0)  # type: ignore[arg-type]


class Ramp:
    """Steady looks at a pool at a rising rate, each after the replicas that were started are ready."""

    def __init__(self, members: Sequence[Member], places: Sequence[Place], **options: float) -> None:
        self.scaling = Infaas(horizon_s=10.0, bin_s=10.0, coverage=0.01, target=1.0, **options).start()  # type: ignore[arg-type]
        self.members, self.places = list(members), list(places)
        self.now_s, self.arrived = 0.0, 0.0
        self.hosts = {"m2": Host(price_per_s=5.0)}

    def at_rate(
        self, rate: float, seconds: int, taken: int = 0
    ) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """What is started and stopped meanwhile; `taken` slots are busy in each replica."""
        changes = []
        for _ in range(seconds):
            self.arrived += rate
            self.now_s += 1.0
            pool = Pool(
                members=tuple(
                    Member(
                        name=m.name, state="ready", slots=m.slots, speed=m.speed, host=m.host,
                        price_per_s=m.price_per_s, running=min(taken, m.slots),
                    )
                    for m in self.members
                ),
                places=tuple(self.places),
                arrived=int(self.arrived),
                recent=((1, 1),),
            )  # fmt: skip
            made = self.scaling.decide(ScalerInput(pools={"m": pool}, now_s=self.now_s, hosts=self.hosts))
            self._apply(made.start, made.stop)
            if made.start or made.stop:
                changes.append((made.start, made.stop))
        return changes

    def _apply(self, start: tuple[str, ...], stop: tuple[str, ...]) -> None:
        for name in start:
            found = next(each for each in self.places if each.name == name)
            self.places.remove(found)
            self.members.append(
                Member(
                    name=name, state="ready", slots=found.slots, speed=found.speed,
                    price_per_s=found.price_per_s, host=found.host,
                )
            )  # fmt: skip
        for name in stop:
            gone = next(each for each in self.members if each.name == name)
            self.members.remove(gone)
            self.places.append(
                Place(
                    name=name, slots=gone.slots, speed=gone.speed, price_per_s=gone.price_per_s,
                    host=gone.host, cold_start_s=2.0,
                )
            )  # fmt: skip


@pytest.mark.row("ra-infaas-scale", "mechanism", claims=(1,))
def test_on_a_ramp_a_variant_is_upgraded_before_a_machine_is_added() -> None:
    ramp = Ramp(
        [member(small("s1"))],
        [place(small("s2")), place(large("l1")), place(large("l2", host="m2"))],
        calm_s=1000.0,
    )
    low = ramp.at_rate(6.0, 100)
    assert low == [(("s2",), ())], "replicating costs 1, upgrading 3"
    middle = ramp.at_rate(15.0, 100)
    assert [start for start, _ in middle if start] == [("l1",)], "one large answers more than all small ones"
    assert {m.name for m in ramp.members} == {"l1"}, "the small ones stop once the large one is ready"
    high = ramp.at_rate(40.0, 100, taken=4)
    assert "l2" in {name for start, _ in high for name in start}, "the machine comes last"


@pytest.mark.row("ra-infaas-scale", "mechanism")
def test_a_lower_load_downgrades_after_a_while_of_calm() -> None:
    ramp = Ramp([member(large("l1"))], [place(small("s1")), place(small("s2"))], calm_s=10.0)
    assert ramp.at_rate(15.0, 100) == []
    assert ramp.at_rate(2.0, 8) == []
    changes = ramp.at_rate(2.0, 300)
    assert [m.slots for m in ramp.members] == [2], "a small one in the place of the large one"
    assert changes[0][1] == (), "which stays until that is ready"


@pytest.mark.row("ra-infaas-scale", "mechanism")
def test_a_machine_is_not_added_as_long_as_the_others_have_room() -> None:
    # The dear machine's replica would be cheaper by itself; there is a place where a machine runs already.
    members = [member(small("s1"))]
    places = [place(small("s2", price_per_s=6.0)), place(small("n1", host="m2", price_per_s=0.5))]
    assert Ramp(members, places).at_rate(6.0, 60, taken=1) == [(("s2",), ())]
    full = Ramp(members, places).at_rate(6.0, 60, taken=2)
    assert full == [(("n1",), ())], "5.5 with its machine is less than 6"


def exact(variants: Sequence[Variant], need: float, load_weight: float) -> float:
    """The least cost over all mixes: what the integer program gives."""
    return min(
        mix_cost(variants, counts, load_weight)
        for counts in itertools.product(*(range(kind.most + 1) for kind in variants))
        if sum(c * kind.capacity for c, kind in zip(counts, variants, strict=True)) >= need - 1e-9
    )


def made_up(draw: random.Random) -> tuple[tuple[Variant, ...], float]:
    """Three or four variants, each about as dear as what it answers, and a need below what all answer."""
    kinds = []
    for i in range(draw.choice((3, 4))):
        capacity = draw.uniform(1, 20)
        up, free = draw.randint(0, 2), draw.randint(1, 4)
        kinds.append(
            Variant(
                capacity=capacity,
                price_per_s=capacity**0.8 * draw.uniform(0.7, 1.4),
                start_s=draw.uniform(1, 20),
                members=tuple(f"u{i}{n}" for n in range(up)),
                places=tuple(f"p{i}{n}" for n in range(free)),
            )
        )
    return tuple(kinds), draw.uniform(0.1, 0.9) * sum(kind.most * kind.capacity for kind in kinds)


@pytest.mark.row("ra-infaas-scale", "effect", claims=(2,))
def test_the_greedy_mix_costs_little_more_than_the_exact_one(measured: Measure) -> None:
    draw = random.Random(29)  # developed on 1 to 5
    above = []
    for _ in range(200):
        kinds, need = made_up(draw)
        counts = cheapest_mix(kinds, need, 0.01)
        assert sum(c * kind.capacity for c, kind in zip(counts, kinds, strict=True)) >= need - 1e-9
        above.append(mix_cost(kinds, counts, 0.01) / exact(kinds, need, 0.01) - 1)
    mean = sum(above) / len(above)
    print(f"\nabove the exact cost: worst of 200 {max(above):.2%}, mean {mean:.2%}")
    measured("greedy cost over exact, worst of 200 small cases", 1 + max(above), at_most=1.1, unit="x")
    measured("greedy cost over exact, mean", 1 + mean, at_most=1.1, unit="x")


@pytest.mark.parametrize(
    "options", [{"target": 0}, {"load_weight": -1}, {"host_threshold": 2}, {"drain_s": 0}], ids=str
)
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is "):
        Infaas(**options)  # type: ignore[arg-type]
