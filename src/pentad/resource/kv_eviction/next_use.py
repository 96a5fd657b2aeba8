"""Steps to the next use, from what is in the queue and what pauses were like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.execution.kv.eviction import CachedText
from pentad.ranges import in_range
from pentad.resource.residual_life import mean_residual_s


@dataclass(frozen=True, slots=True, kw_only=True)
class NextUse:
    """Keeps the texts that are used soonest: when their pause likely ends, and when their turn comes then.

    How much longer a pause takes is the mean of what such pauses took beyond the time that has passed, so a
    tool that has outlasted most of its calls is not expected any moment. One that has outlasted all is
    expected to take as long again, as pauses have heavy tails. A run then waits about as long as it has had
    of the machine, since `workflow` lets those with less go first. Where room must be made, one text is
    given up whole before the next loses its end, since a text that is half there saves half.
    Exactness: lossless.

    Source: Belady's rule on expectations; the conditional mean is the mean residual life of survival
    analysis. KVFlow (Pan et al., 2025) orders by steps to execution in a known graph; our difference: time
    in the place of steps, learnt per tool, and the place in the queue counts.
    """

    unknown_s: float = 5.0
    """A pause of which neither its sender nor earlier ones tell."""
    longest_s: float = 600.0
    """A text whose pause is expected to take longer than that is not kept."""
    cut: float = 2.0
    """How many times as far a text is taken to be that has lost blocks already; at least 1."""

    name: ClassVar[str] = "next-use"

    def __post_init__(self) -> None:
        in_range("unknown_s", self.unknown_s, above=0)
        in_range("longest_s", self.longest_s, above=0)
        in_range("cut", self.cut, least=1)

    def expected_s(self, text: CachedText) -> float | None:
        if text.waiting:
            return text.service_s
        known = text.pauses
        if text.hinted_s is not None and text.idle_s <= text.hinted_s:
            left_s = text.hinted_s - text.idle_s
        elif not known and text.idle_s <= self.unknown_s:
            left_s = self.unknown_s - text.idle_s
        else:
            left_s = mean_residual_s(known, text.idle_s)
        return left_s + text.service_s if left_s <= self.longest_s else None

    def keep_value(self, text: CachedText, expected_s: float) -> float:
        return -expected_s if text.whole else -self.cut * expected_s
