"""Kairos: bounds worked out by hand, requests matched to instances, and the mix beside all others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.errors import Infeasible, InvalidRequest
from pentad.resource.scaling.base import Member, Place, Pool, ScalerInput
from pentad.resource.scaling.instance_mix import InstanceType, best_mix, mixes, most_per_s
from pentad.resource.scaling.kairos import Kairos
from pentad.resource.scaling.speed import Speed
from pentad.resource.simulator.instances import Matcher, Queued, completions, first_come, matched

BIG = InstanceType(name="big", price_per_s=3.0, fixed_s=0.0, unit_s=0.01, most=3)
SLIM = InstanceType(name="slim", price_per_s=1.0, fixed_s=0.0, unit_s=0.02, most=9)


class TestBound:
    @pytest.mark.row("ra-kairos", "mechanism")
    def test_by_hand(self) -> None:
        # Nine of ten requests have size 10, one 100; within 1 s slim instances reach 50, big ones 100.
        sizes = [10.0] * 9 + [100.0]
        assert most_per_s([BIG], [1], sizes, 1.0) == pytest.approx(1 / 0.19)
        # Six slim ones take all short requests, up to 30 a second; the big one the long ones, 1 s each: ten
        # a second in all, and of the short ones nothing is left for it.
        assert most_per_s([BIG, SLIM], [1, 6], sizes, 1.0) == pytest.approx(10.0)
        # One slim one takes 5 of the short ones: the big one has 0.1 r * 1 + (0.9 r - 5) * 0.1 = 1.
        assert most_per_s([BIG, SLIM], [1, 1], sizes, 1.0) == pytest.approx(1.5 / 0.19)
        assert most_per_s([BIG, SLIM], [0, 9], sizes, 1.0) == 0.0, "nobody answers the long ones"

    def test_mixes_use_the_budget_up(self) -> None:
        assert list(mixes([BIG, SLIM], 4.5)) == [(0, 4), (1, 1)]
        free = dataclasses.replace(SLIM, price_per_s=0.0, most=2)
        assert list(mixes([BIG, free], 3.0)) == [(1, 2)]

    def test_a_budget_for_no_mix_that_answers_all_is_refused(self) -> None:
        with pytest.raises(Infeasible, match="no mix of instances for 2 a second") as caught:
            best_mix([BIG, SLIM], [100.0], 1.0, 2.0)
        assert "budget_per_hour" in str(caught.value.hint)

    @pytest.mark.parametrize("options", [{"budget_per_hour": 0}, {"deadline_s": 0}, {"sample": 0}], ids=str)
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is "):
            Kairos(**options)  # type: ignore[arg-type]


class TestMatching:
    @pytest.mark.row("ra-kairos", "mechanism")
    def test_long_requests_go_to_who_can_do_them_in_time(self) -> None:
        requests = [Queued(arrived_s=0.0, size=10.0), Queued(arrived_s=0.0, size=90.0)]
        assert completions([BIG, SLIM], requests, first_come) == pytest.approx([0.1, 1.8])
        assert completions([BIG, SLIM], requests, matched(1.0)) == pytest.approx([0.2, 0.9])

    @pytest.mark.row("ra-kairos", "mechanism")
    def test_a_request_waits_for_the_instance_that_is_in_time_rather_than_take_one_that_is_not(self) -> None:
        requests = [Queued(arrived_s=0.0, size=20.0), Queued(arrived_s=0.1, size=70.0)]
        only = [dataclasses.replace(BIG, name="a"), SLIM]
        took = completions(only, [dataclasses.replace(requests[0], size=60.0), requests[1]], matched(1.4))
        assert took == pytest.approx([0.6, 1.2]), (
            "0.5 s of waiting and 0.7; the slim one would take 1.4 and be late"
        )


class TestScaler:
    def state(self, recent: tuple[tuple[int, int], ...], now_s: float, up: int = 0) -> ScalerInput:
        big = Speed(prompt_token_s=0.01, alone_s=0.0, full_s=0.0)
        slim = Speed(prompt_token_s=0.02, alone_s=0.0, full_s=0.0)
        every = [("big", big, 3.0)] * 3 + [("slim", slim, 1.0)] * 9
        members = tuple(
            Member(name=f"{kind}{i}", state="ready", speed=speed, price_per_s=price)
            for i, (kind, speed, price) in enumerate(every[:up])
        )
        places = tuple(
            Place(name=f"{kind}{i}", speed=speed, price_per_s=price)
            for i, (kind, speed, price) in enumerate(every)
            if i >= up
        )
        pool = Pool(members=members, places=places, recent=recent, waiting=2)
        return ScalerInput(pools={"m": pool}, now_s=now_s)

    @pytest.mark.row("ra-kairos", "mechanism")
    def test_it_starts_what_waits_until_it_knows_the_sizes_and_then_the_mix(self) -> None:
        scaling = Kairos(budget_per_hour=9 * 3600, deadline_s=1.0, sample=10).start()
        first = scaling.decide(self.state((), 0.0))
        assert len(first.start) == 2
        assert first.decisions[0].constraint == "sample"
        sizes = ((10, 1),) * 9 + ((100, 1),)
        made = scaling.decide(self.state(sizes, 1.0, up=3))
        kinds = {
            "big": InstanceType(name="big", price_per_s=3.0, fixed_s=0.0, unit_s=0.01, most=3),
            "slim": SLIM,
        }
        bounds = {
            counts: most_per_s(list(kinds.values()), counts, [float(s) for s, _ in sizes], 1.0)
            for counts in mixes(list(kinds.values()), 9.0)
        }
        chosen = dict(made.decisions[0].candidates)
        mix = next(
            counts
            for counts in bounds
            if set(map(float, counts)) <= {v for v in chosen.values() if v is not None}
        )
        assert made.decisions[0].constraint == "budget"
        assert bounds[mix] >= 0.7 * max(bounds.values())
        assert set(made.stop) <= {"big0", "big1", "big2"}
        assert scaling.decide(self.state(sizes, 2.0, up=3)) == dataclasses.replace(
            made, decisions=(dataclasses.replace(made.decisions[0], at_s=2.0),)
        ), "the mix is kept until it is looked at again"


def types(cpu: float) -> tuple[InstanceType, ...]:
    """The paper's four types with their prices; what they take is made up.

    A GPU's start takes longer and its items less than a CPU's; only the GPU answers the longest in time.

    Args:
        cpu: how heavy an item is for a CPU: 1 is 4 to 8 times what it takes on the GPU.
    """

    def of(name: str, price: float, fixed_s: float, unit_s: float, most: int) -> InstanceType:
        return InstanceType(name=name, price_per_s=price, fixed_s=fixed_s, unit_s=unit_s, most=most)

    return (
        of("g4dn.xlarge", 0.526, 0.020, 0.0002, 4),
        of("c5n.2xlarge", 0.432, 0.004, 0.00075 * cpu, 3),
        of("r5n.large", 0.149, 0.006, 0.0016 * cpu, 6),
        of("t3.xlarge", 0.1664, 0.006, 0.0014 * cpu, 6),
    )


DEADLINE_S = 0.35
BUDGET = 1.6
"""Three GPUs; the paper's 2.5 makes too many mixes to try them all."""


def sizes(count: int, seed: int) -> np.ndarray:
    """Batch sizes of queries, log-normal as recommendation traces have them, 1 to 1000."""
    return np.clip(np.random.default_rng(seed).lognormal(4.2, 1.1, count), 1, 1000)


def highest(types: list[InstanceType], match: Matcher, seed: int, count: int = 400) -> float:
    """Queries per second of which 99% are answered in time, found by halving."""
    own = sizes(count, seed)
    gaps = np.random.default_rng(seed + 1).exponential(1.0, count)
    low, high = 0.0, 2 * sum(1 / kind.seconds(float(own.mean())) for kind in types)
    while high - low > 0.04 * high:
        rate = (low + high) / 2
        arrivals = np.cumsum(gaps) / rate
        requests = [
            Queued(arrived_s=float(at), size=float(size)) for at, size in zip(arrivals, own, strict=True)
        ]
        met = np.mean(np.array(completions(types, requests, match)) <= DEADLINE_S)
        low, high = (rate, high) if met >= 0.99 else (low, rate)
    return low


def throughput(kinds: tuple[InstanceType, ...], counts: tuple[int, ...], by: Matcher) -> float:
    return highest([k for k, count in zip(kinds, counts, strict=True) for _ in range(count)], by, SEED)


SEED = 47
"""Of what is measured; 1, 2, 31 and 32 were looked at while the rule was chosen."""


def sample() -> list[float]:
    """What is known of the sizes when the mix is chosen: other requests than those that come."""
    found: list[float] = np.quantile(sizes(256, SEED + 100), np.linspace(0, 1, 64)).tolist()
    return found


@pytest.mark.thorough
@pytest.mark.row("ra-kairos", "effect", claims=(2,))
@pytest.mark.parametrize("cpu", [0.25, 0.5])
def test_a_mix_answers_more_than_one_type_for_the_budget(cpu: float, measured: Measure) -> None:
    # On a model that is as heavy as 1 for CPUs these are no cheaper for short requests than the GPU: no gain.
    kinds = types(cpu)
    ours = throughput(kinds, best_mix(kinds, sample(), DEADLINE_S, BUDGET), matched(DEADLINE_S))
    # As much as the whole budget would buy, though a part of an instance cannot be bought.
    one_type = BUDGET / (3 * kinds[0].price_per_s) * throughput(kinds, (3, 0, 0, 0), first_come)
    print(f"\nCPU {cpu}: {ours:.1f}/s, one type {one_type:.1f}/s")
    measured(f"throughput over one type, CPU {cpu}", ours / one_type, at_least=1.3, unit="x")


@pytest.mark.thorough
@pytest.mark.row("ra-kairos", "effect", claims=(1,), negative=True)
def test_the_bound_does_not_find_a_mix_within_a_tenth_of_the_best(measured: Measure) -> None:
    # It is 0.99 of the best of all for models that are light for CPUs (0.25), 0.88 for 0.5, 0.62 for 1:
    # the bound knows no queues, and mixes with a single GPU lose most when long requests come close together.
    kinds = types(1.0)
    bounds = {counts: most_per_s(kinds, counts, sample(), DEADLINE_S) for counts in mixes(kinds, BUDGET)}
    chosen = best_mix(kinds, sample(), DEADLINE_S, BUDGET)
    tried = [counts for counts, bound in bounds.items() if bound > max(bounds.values()) / 1.5]
    found = {counts: throughput(kinds, counts, matched(DEADLINE_S)) for counts in tried}
    best = max(found, key=lambda counts: found[counts])
    print(f"\nchosen {chosen} {found[chosen]:.1f}/s, best of {len(found)} {best} {found[best]:.1f}/s")
    measured("throughput over the best mix, CPU 1", found[chosen] / found[best], at_most=0.9, unit="x")
