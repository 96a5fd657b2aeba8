"""Ledger: hard limits by reservation. What a call may cost is held before it starts, settled after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pentad.agent.values import changed
from pentad.errors import BackendFailed, BudgetExceeded
from pentad.types import Budget, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What one call consumes, or may consume at most."""

    tokens: int = 0
    cost: float = 0.0
    tool_calls: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 0 or self.tool_calls < 0 or not 0 <= self.cost < math.inf:
            raise ValueError(f"an amount cannot be negative: {self}")

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            tokens=self.tokens + other.tokens,
            cost=self.cost + other.cost,
            tool_calls=self.tool_calls + other.tool_calls,
        )


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What a run has used and holds, against its budget. Used plus held never passes the budget.

    It is a value: each change returns the next ledger, so that folding the journal rebuilds it.
    """

    budget: Budget = field(default_factory=Budget)
    used: Amount = field(default_factory=Amount)
    held: Mapping[str, Amount] = field(default_factory=dict)
    overdrawn: Amount = field(default_factory=Amount)
    """What backends reported beyond both their reservation and the budget; 0 with honest ones."""

    def check(self, amount: Amount) -> None:
        """Raises BudgetExceeded unless `amount` can be held now."""
        wanted = self.committed + amount
        for name, unit in (("tokens", "tokens"), ("cost", "money"), ("tool_calls", "tool calls")):
            limit, need = getattr(self.budget, name), getattr(wanted, name)
            if limit is not None and need > limit:
                left = limit - getattr(self.committed, name)
                raise BudgetExceeded(
                    f"the next call may take {getattr(amount, name):g} {unit}, {left:g} of {limit:g} left",
                    hint=f"raise budget.{name}",
                    param=f"budget.{name}",
                )

    def hold(self, key: str, amount: Amount) -> Ledger:
        """The ledger with `amount` reserved under `key`. The caller has checked it."""
        return changed(self, held={**self.held, key: amount})

    def settle(self, key: str, actual: Amount) -> Ledger:
        """The ledger with the reservation turned into what was really used.

        A report above the reservation counts in full as long as the budget has room; what does
        not fit is kept as `overdrawn` and ends the run.
        """
        rest = {name: amount for name, amount in self.held.items() if name != key}
        freed = changed(self, held=rest)
        room = freed.left()
        tokens = actual.tokens if room.tokens is None else min(actual.tokens, room.tokens)
        cost = actual.cost if room.cost is None else min(actual.cost, room.cost)
        calls = actual.tool_calls if room.tool_calls is None else min(actual.tool_calls, room.tool_calls)
        taken = Amount(tokens=tokens, cost=cost, tool_calls=calls)
        over = Amount(
            tokens=actual.tokens - tokens, cost=actual.cost - cost, tool_calls=actual.tool_calls - calls
        )
        return changed(freed, used=self.used + taken, overdrawn=self.overdrawn + over)

    def forfeit(self, keep: str | None = None) -> Ledger:
        """The ledger after a crash: what calls in doubt held counts as used, for nobody knows better.

        Args:
            keep: reservations whose key begins so stay held, since what they are for has its own record.
        """
        kept = {key: amount for key, amount in self.held.items() if keep and key.startswith(keep)}
        lost = sum((amount for key, amount in self.held.items() if key not in kept), self.used)
        return changed(self, used=lost, held=kept)

    @property
    def committed(self) -> Amount:
        """Used and held together."""
        return sum(self.held.values(), self.used) if self.held else self.used

    def left(self, wall_used_s: float = 0.0) -> Budget:
        """What can still be reserved; None where there is no limit."""
        taken, budget = self.committed, self.budget
        return Budget(
            tokens=None if budget.tokens is None else max(0, budget.tokens - taken.tokens),
            cost=None if budget.cost is None else max(0.0, budget.cost - taken.cost),
            wall_s=None if budget.wall_s is None else max(0.0, budget.wall_s - wall_used_s),
            tool_calls=None if budget.tool_calls is None else max(0, budget.tool_calls - taken.tool_calls),
        )


def consumed(usage: Usage) -> Amount:
    """A backend's report as an amount. Raises BackendFailed when it cannot be true."""
    counts = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.reasoning_tokens)
    if min(counts) < 0 or not 0 <= usage.cost < math.inf:
        raise BackendFailed(f"the backend reported impossible usage: {counts} tokens, cost {usage.cost}")
    return Amount(tokens=usage.total_tokens, cost=usage.cost)


def narrower(one: Budget, other: Budget) -> Budget:
    """The tighter of two budgets, limit by limit."""

    def least(a: float | None, b: float | None) -> float | None:
        return b if a is None else a if b is None else min(a, b)

    tokens, calls = least(one.tokens, other.tokens), least(one.tool_calls, other.tool_calls)
    return Budget(
        tokens=None if tokens is None else int(tokens),
        cost=least(one.cost, other.cost),
        wall_s=least(one.wall_s, other.wall_s),
        tool_calls=None if calls is None else int(calls),
    )


def carved(left: Budget, share: float) -> Budget:
    """A budget for a part of the work: `share` (0 to 1) of what is left, rounded down.

    Wall time is not divided, for parts use it at the same time.
    """

    def part(amount: int | None) -> int | None:
        return None if amount is None else int(amount * share)

    return Budget(
        tokens=part(left.tokens),
        cost=None if left.cost is None else left.cost * share,
        wall_s=left.wall_s,
        tool_calls=part(left.tool_calls),
    )
