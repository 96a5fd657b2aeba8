"""Prices of models, and what requests cost by them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pentad.types import Usage

_PER = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Money per million tokens, in whatever currency all prices of one process are in."""

    prompt: float = 0.0
    completion: float = 0.0
    cached: float | None = None
    """Of prompt tokens that were cached; None: as the others."""

    def cost(self, usage: Usage) -> float:
        """What a finished request costs."""
        cached = self.prompt if self.cached is None else self.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        total = fresh * self.prompt + usage.cached_tokens * cached + usage.completion_tokens * self.completion
        return total / _PER

    def at_most(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What a request of this size can cost, nothing of it being cached for less."""
        dearest = max(self.prompt, self.cached or 0.0)
        return (prompt_tokens * dearest + completion_tokens * self.completion) / _PER

    def affordable(self, money: float, prompt_tokens: int) -> int | None:
        """Completion tokens that `money` pays for behind such a prompt; None: as many as one likes.

        Below 0 when not even the prompt is paid for.
        """
        left = money - self.at_most(prompt_tokens, 0)
        if left < 0:
            return -1
        if self.completion <= 0:
            return None
        paid = left * _PER / self.completion
        return int(paid) if math.isfinite(paid) else None


FREE = Price()
