"""Window: how much of a conversation stays in the prompt, oldest out first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
Overflow = Literal["trim", "summarise", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How much of the conversation stays, and what happens to the rest. Always declared in the run."""

    max_tokens: int | None = None
    """Upper bound of a whole prompt; None means what the model's context leaves."""
    max_turns: int | None = None
    """Most turns kept besides the goal; None means as many as fit."""
    overflow: Overflow = "trim"
    """Leave the oldest turns out, put a summary in their place, or refuse the prompt."""

    def __post_init__(self) -> None:
        for field in ("max_tokens", "max_turns"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} is {value}, must be at least 1")

    def start(self, turns: Sequence[T], *, dropped: int = 0) -> Recent[T]:
        """The window over a conversation of which `dropped` turns are out already."""
        return Recent(self, turns, dropped)


class Recent(Generic[T]):
    """The turns that are in the window now. Turns leave oldest first and never come back."""

    def __init__(self, window: Window, turns: Sequence[T], dropped: int) -> None:
        self._window = window
        self._turns = turns
        self.dropped = min(dropped, len(turns))

    def read(self) -> Sequence[T]:
        """The turns in the window, oldest first."""
        return self._turns[self.dropped :]

    def overflowing(self) -> bool:
        """Whether there are more turns than the window keeps, whatever their size."""
        most = self._window.max_turns
        return most is not None and len(self._turns) - self.dropped > most

    def trim(self, fits: Callable[[Sequence[T]], bool], *, most: int | None = None) -> Sequence[T] | None:
        """Lets the fewest oldest turns go so that the rest fits; returns those that went.

        At most `most` turns stay, or `max_turns` of the window where it is None.
        None, with nothing changed, when it would not fit even with all of them gone. Calls `fits`,
        which must hold for a shorter window if it holds for a longer one, O(log n) times.
        """
        most = self._window.max_turns if most is None else most
        low = self.dropped if most is None else max(self.dropped, len(self._turns) - most)
        high = len(self._turns)
        if not fits(self._turns[high:]):
            return None
        while low < high:
            middle = (low + high) // 2
            if fits(self._turns[middle:]):
                high = middle
            else:
                low = middle + 1
        gone = self._turns[self.dropped : low]
        self.dropped = low
        return gone
