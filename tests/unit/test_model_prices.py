"""Prices turn tokens into money, and money into tokens."""

from __future__ import annotations

import asyncio

import pytest

from pentad.model.prices import FREE, Price
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from pentad.types import Request, Usage

PRICE = Price(prompt=2.0, completion=10.0, cached=0.5)


def test_cost_counts_cached_tokens_at_their_own_price() -> None:
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=100_000)
    assert PRICE.cost(usage) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 10)
    assert Price(prompt=2.0, completion=10.0).cost(usage) == pytest.approx(2 + 1)
    assert FREE.cost(usage) == 0


def test_what_is_affordable_never_costs_more_than_the_money() -> None:
    for money in (0.0, 0.001, 0.0021, 0.5):
        tokens = PRICE.affordable(money, 1000)
        assert tokens is not None
        if tokens < 0:
            assert PRICE.at_most(1000, 0) > money
        else:
            assert PRICE.at_most(1000, tokens) <= money < PRICE.at_most(1000, tokens + 2)
    assert FREE.affordable(0.0, 10**9) is None


def test_every_answer_carries_its_cost() -> None:
    used = Usage(prompt_tokens=500_000, completion_tokens=100_000)
    backend = ScriptedBackend([["hi", used]])
    models = ModelService({"m": backend}, router=Fixed(), prices={"m": PRICE})
    answer = asyncio.run(models.complete(Request(id="r", model="", text="x")))
    assert answer.usage.cost == pytest.approx(2.0)
