"""Money against delay: the auction between devices, and the drift-plus-penalty choice."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.resource.offloading.auction import Market, double_dutch
from pentad.resource.offloading.base import OffloadInput, OffloadTask, Site
from pentad.resource.offloading.double_dutch import DoubleDutch
from pentad.resource.offloading.drift_plus_penalty import DriftPlusPenalty

PRICES = st.lists(st.floats(0, 100, allow_nan=False), max_size=12)


def fair(bids: list[float], asks: list[float], market: Market) -> None:
    """Asserts that nobody trades at a loss or twice; by its one price, what is paid is what is got."""
    slack = 1e-9 * (1 + market.price)
    for buyer, seller in market.pairs:
        assert asks[seller] - slack <= market.price <= bids[buyer] + slack
    for side in zip(*market.pairs, strict=True):
        assert len(set(side)) == len(side)


@given(PRICES, PRICES, st.integers(1, 300))
def test_no_market_has_a_trade_at_a_loss(bids: list[float], asks: list[float], ticks: int) -> None:
    fair(bids, asks, double_dutch(bids, asks, ticks=ticks))


@pytest.mark.row("ra-double-dutch", "mechanism")
def test_clocks_meet_between_the_last_pair_that_gains() -> None:
    market = double_dutch([9, 7, 3, 1], [2, 4, 6, 8])
    assert market.pairs == ((0, 0), (1, 1))  # 3 against 6 would lose
    assert 4 <= market.price <= 7
    assert double_dutch([1.0], [2.0]).pairs == double_dutch([], [1.0]).pairs == ()
    assert double_dutch([5.0], [5.0]).pairs == ((0, 0),)


@pytest.mark.row("ra-double-dutch", "mechanism")
def test_a_request_is_sold_to_the_least_ask_and_told_where_all_ask_too_much() -> None:
    sites = (Site(name="dear", token_s=0.1, price_per_token=1.0), Site(name="slow", token_s=0.5))

    def sold(**options: float) -> tuple[str, str | None]:
        task = OffloadTask(id="r", prompt_tokens=1, answer_tokens=10)
        policy = DoubleDutch(**options).start()
        site, decision = policy.choose(OffloadInput(task=task, sites=sites, now_s=0.0))
        return site, decision.constraint

    assert sold(seconds_per_money=0.1) == ("dear", None)  # 1 s and 1 s for its money, against 5 s
    assert sold(seconds_per_money=1.0) == ("slow", None)
    assert sold(worth_s=0.5)[1] == "no trade: every site asks more than it is worth"


def test_impossible_prices_are_refused() -> None:
    for arguments, name in ((([-1.0], [1.0]), "bid"), (([1.0], [float("nan")]), "ask")):
        with pytest.raises(InvalidRequest, match=name):
            double_dutch(*arguments)
    with pytest.raises(InvalidRequest, match="ticks"):
        double_dutch([1.0], [1.0], ticks=0)


@pytest.mark.row("ra-double-dutch", "effect", claims=(1, 2))
def test_a_thousand_markets_balance_and_reach_nine_tenths_of_the_best_welfare(measured: Measure) -> None:
    draw = random.Random(5)
    shares = []
    for number in range(1000):
        scale = draw.choice((1.0, 50.0))
        bids = [draw.random() * scale for _ in range(draw.randint(1, 40))]
        asks = [draw.random() ** 2 * scale for _ in range(draw.randint(1, 40))]
        market = double_dutch(bids, asks)
        fair(bids, asks, market)
        welfare = sum(bids[buyer] - asks[seller] for buyer, seller in market.pairs)
        ranked = zip(sorted(bids, reverse=True), sorted(asks), strict=False)
        best = sum(max(0.0, bid - ask) for bid, ask in ranked)
        if best:
            shares.append(welfare / best)
        assert welfare >= 0, number
    measured("least welfare over the optimum in 1000 markets", min(shares), at_least=0.9)


class Slots:
    """A cheap and a dear site of 10 tokens a second each, and the choices of a policy among them."""

    CAPACITY = 10.0
    PRICES = (1.0, 5.0)

    def __init__(self, v: float) -> None:
        self.policy = DriftPlusPenalty(v=v).start()
        self.backlog = [0.0, 0.0]
        self.given = [0, 0]

    def run(self, rate_per_s: float, seconds: int, seed: int) -> tuple[float, float]:
        """Mean money per request, and mean seconds of backlog that a request finds where it goes."""
        draw = np.random.default_rng(seed)
        waits = []
        for now_s in range(seconds):
            waits += [self.choose(f"{now_s}/{i}", float(now_s)) for i in range(draw.poisson(rate_per_s))]
            self.backlog = [max(0.0, each - self.CAPACITY) for each in self.backlog]
        money = sum(
            count * price / self.CAPACITY for count, price in zip(self.given, self.PRICES, strict=True)
        )
        return money / len(waits), float(np.mean(waits))

    def choose(self, name: str, now_s: float) -> float:
        sites = tuple(
            Site(
                name=str(i),
                queued_tokens=round(self.backlog[i]),
                prompt_token_s=1 / self.CAPACITY,
                price_per_s=self.PRICES[i],
            )
            for i in range(2)
        )
        task = OffloadTask(id=name, prompt_tokens=1, answer_tokens=0)
        chosen = int(self.policy.choose(OffloadInput(task=task, sites=sites, now_s=now_s))[0])
        found_s = self.backlog[chosen] / self.CAPACITY
        self.backlog[chosen] += 1
        self.given[chosen] += 1
        return found_s


@pytest.mark.row("ra-ce-iot", "mechanism")
def test_the_dear_site_is_used_once_the_cheap_queue_outweighs_its_price() -> None:
    slots = Slots(v=2.0)
    for _ in range(200):
        slots.choose("r", 0.0)
    assert slots.backlog[0] - slots.backlog[1] == pytest.approx(2.0 * (5 - 1) * Slots.CAPACITY, abs=2)


@pytest.mark.row("ra-ce-iot", "effect", claims=(1, 2))
def test_money_falls_and_delay_grows_in_proportion_to_v_while_queues_stay_bounded(measured: Measure) -> None:
    weights = [0.5, 1.0, 2.0, 4.0, 8.0]
    found = [Slots(v).run(14.0, 2500, seed=9) for v in weights]
    money, delay = zip(*found, strict=True)
    assert list(money) == sorted(money, reverse=True)
    measured("money of the largest v over that of the smallest", money[-1] / money[0], at_most=0.99)
    fit = np.polyfit(weights, delay, 1)
    left = np.sum((np.polyval(fit, weights) - delay) ** 2) / np.sum((delay - np.mean(delay)) ** 2)
    measured("R squared of delay as a line over v", float(1 - left), at_least=0.95)
    assert fit[0] > 0
    short, long = (Slots(4.0), Slots(4.0))
    short.run(18.0, 1500, seed=10)
    long.run(18.0, 4500, seed=10)
    bound = 4.0 * (5 - 1) * Slots.CAPACITY + 100
    measured("tokens that wait at 90% of the capacity, of the bound", max(long.backlog) / bound, at_most=1.0)
    assert max(short.backlog) <= bound


@pytest.mark.parametrize("v", [0.0, -1.0, float("inf")])
def test_an_impossible_weight_is_refused(v: float) -> None:
    with pytest.raises(InvalidRequest, match="v is "):
        DriftPlusPenalty(v=v)
