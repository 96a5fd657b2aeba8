"""NewestTurns: pinned turns and the newest; when the prompt is full it is cut well below its limit."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.agent.context_builders.base import ContextInput, OldestOut
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestTurns(OldestOut):
    """Keeps pinned turns and the newest, and cuts seldom and deep; asks the model for no summary.

    When the prompt is full it is cut to a fraction of its limit. So it begins alike in many steps
    that follow, and the engine's prefix cache keeps it; a cut of one turn a step would shift it each
    time. Exactness: lossy; each cut is recorded. Cost: none of its own.
    """

    keep_fraction: float = 0.6
    """Of the tokens and turns that may stay, what a cut leaves; above 0, at most 1."""

    name = "window"

    def __post_init__(self) -> None:
        in_range("keep_fraction", self.keep_fraction, above=0, most=1)

    def goal(self, given: ContextInput) -> tuple[int, int | None]:
        """The fraction of the limit."""
        most = given.window.max_turns
        turns = None if most is None else max(1, int(most * self.keep_fraction))
        return int(given.limit * self.keep_fraction), turns
