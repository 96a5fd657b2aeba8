"""A clock that only the simulation moves."""

from __future__ import annotations


class VirtualClock:
    """Implements `pentad.types.Clock`. Costs nothing, waits for nobody."""

    __slots__ = ("now_s",)

    def __init__(self, start_s: float = 0.0) -> None:
        self.now_s = start_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Lets time pass; never backwards."""
        assert seconds >= 0, f"time cannot pass by {seconds} s"
        self.now_s += seconds
