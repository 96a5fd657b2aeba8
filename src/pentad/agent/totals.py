"""Totals: what the model calls of a run used."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.types import Energy, Usage, together


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Model usage of a run so far."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    energy: Energy | None = None
    """Of the calls that were metered."""
    model_calls: int = 0

    def plus(self, usage: Usage) -> Totals:
        return Totals(
            prompt_tokens=self.prompt_tokens + usage.prompt_tokens,
            cached_tokens=self.cached_tokens + usage.cached_tokens,
            completion_tokens=self.completion_tokens + usage.completion_tokens,
            cost=self.cost + usage.cost,
            energy=together((self.energy, usage.energy)),
            model_calls=self.model_calls + 1,
        )
