"""Speed: how fast one replica is, and what that makes of a pool's replicas and its load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pentad.resource.scaling.base import Pool, Replica
    from pentad.resource.scaling.demand import Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast one replica is, from its step times."""

    prompt_token_s: float
    alone_s: float
    """Between the tokens of one sequence by itself."""
    full_s: float
    """The same with all slots taken."""

    def fixed_s(self, slots: int, output_tokens: float) -> float:
        """Of a batch of requests: what it takes however many they are."""
        return output_tokens * (self.alone_s - self._each_s(slots))

    def item_s(self, slots: int, prompt_tokens: float, output_tokens: float) -> float:
        """Of a batch of requests: what each more adds."""
        return prompt_tokens * self.prompt_token_s + output_tokens * self._each_s(slots)

    def per_s(self, slots: int, prompt_tokens: float, output_tokens: float) -> float:
        """Requests per second with all slots taken."""
        fixed_s, item_s = self.fixed_s(slots, output_tokens), self.item_s(slots, prompt_tokens, output_tokens)
        return slots / max(fixed_s + slots * item_s, 1e-9)

    def _each_s(self, slots: int) -> float:
        """What one more sequence adds to the time between tokens."""
        return (self.full_s - self.alone_s) / (slots - 1) if slots > 1 else 0.0


def mean_lengths(pool: Pool) -> tuple[float, float] | None:
    """Prompt and answer tokens of a request, on the mean of the latest; None before one has ended."""
    if not pool.recent:
        return None
    count = len(pool.recent)
    return sum(prompt for prompt, _ in pool.recent) / count, sum(answer for _, answer in pool.recent) / count


def capacity(pool: Pool, demand: Demand) -> Callable[[Replica], float] | None:
    """What a replica answers per second when it is full; None as long as nobody can know.

    It is known from its speed and the lengths of requests, or, without these, from the time that requests
    took a slot.
    """
    lengths, service_s = mean_lengths(pool), demand.service_s

    def per_s(replica: Replica) -> float:
        if replica.speed is not None and lengths is not None:
            return replica.speed.per_s(replica.slots, *lengths)
        return replica.slots / service_s

    if service_s or (lengths is not None and all(each.speed is not None for each in pool.replicas)):
        return per_s
    return None


def needed_per_s(pool: Pool, demand: Demand, drain_s: float) -> float:
    """Requests per second to be answered: the forecast ones, and those that wait within `drain_s`."""
    waiting = pool.waiting + sum(member.waiting for member in pool.members)
    return demand.rate().high + waiting / drain_s
