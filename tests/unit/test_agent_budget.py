"""The ledger: reservations hold, settlements are honest, nothing passes the budget."""

from __future__ import annotations

import pytest

from pentad.agent.budget import Amount, Ledger, consumed, narrower
from pentad.errors import BackendFailed, BudgetExceeded
from pentad.types import Budget, Usage


def test_a_reservation_holds_until_it_is_settled() -> None:
    ledger = Ledger(budget=Budget(tokens=100)).hold("a", Amount(tokens=80))
    with pytest.raises(BudgetExceeded, match=r"may take 30 tokens, 20 of 100 left; raise budget.tokens"):
        ledger.check(Amount(tokens=30))
    ledger = ledger.settle("a", Amount(tokens=10))
    ledger.check(Amount(tokens=90))
    assert ledger.used == Amount(tokens=10)
    assert ledger.left().tokens == 90


@pytest.mark.parametrize("name", ["cost", "tool_calls"])
def test_every_limit_is_checked(name: str) -> None:
    ledger = Ledger(budget=Budget(**{name: 1}))
    ledger.check(Amount(**{name: 1}))
    with pytest.raises(BudgetExceeded, match=f"budget.{name}"):
        ledger.check(Amount(**{name: 2}))


def test_a_report_above_the_reservation_counts_as_far_as_the_budget_goes() -> None:
    ledger = Ledger(budget=Budget(tokens=100)).hold("a", Amount(tokens=20))
    roomy = ledger.settle("a", Amount(tokens=60))
    assert (roomy.used.tokens, roomy.overdrawn.tokens) == (60, 0)
    over = ledger.settle("a", Amount(tokens=150))
    assert (over.used.tokens, over.overdrawn.tokens) == (100, 50)
    with pytest.raises(BudgetExceeded):
        over.check(Amount(tokens=1))


def test_what_a_crash_left_in_doubt_counts_as_used() -> None:
    ledger = Ledger(budget=Budget(tokens=100)).hold("a", Amount(tokens=20)).hold("b", Amount(tool_calls=1))
    assert ledger.forfeit().used == Amount(tokens=20, tool_calls=1)
    assert ledger.forfeit().held == {}


@pytest.mark.parametrize(
    "usage",
    [
        Usage(prompt_tokens=-1),
        Usage(completion_tokens=-5),
        Usage(cached_tokens=-1),
        Usage(cost=-0.1),
        Usage(cost=float("nan")),
        Usage(cost=float("inf")),
    ],
)
def test_negative_or_endless_usage_is_a_broken_backend(usage: Usage) -> None:
    with pytest.raises(BackendFailed, match="impossible usage"):
        consumed(usage)


def test_cached_tokens_count_like_others() -> None:
    assert consumed(Usage(prompt_tokens=10, cached_tokens=9, completion_tokens=2)).tokens == 12


def test_amounts_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        Amount(tokens=-1)


def test_of_two_budgets_the_narrower_counts_limit_by_limit() -> None:
    merged = narrower(Budget(tokens=10, cost=2.0), Budget(tokens=20, cost=1.0, wall_s=3.0))
    assert merged == Budget(tokens=10, cost=1.0, wall_s=3.0)


def test_wall_time_left_never_falls_below_zero() -> None:
    ledger = Ledger(budget=Budget(wall_s=5.0))
    assert ledger.left(3.0).wall_s == 2.0
    assert ledger.left(9.0).wall_s == 0.0
