"""Shares of a machine's energy: what each request has used of it."""

from __future__ import annotations

from collections.abc import Hashable

from pentad.resource.energy import EnergyMeter
from pentad.types import Energy


class RequestEnergy:
    """Divides the energy between two instants among the requests that are under way then.

    Each gets the part of it that its tokens are of all that were computed in that time, prompts included;
    a prompt counts with the first token behind it. Where nobody says that any was computed, all share alike.
    Reading the KV cache is not counted by itself: what it costs beside the weights depends on the model,
    which is not known here. What is used while nothing is under way belongs to nobody. The shares of all
    requests and the idle part add up to what the meter says.

    Args:
        meter: of the whole machine.
    """

    def __init__(self, meter: EnergyMeter) -> None:
        self.meter = meter
        self.idle_j = 0.0
        """Used while no request was under way."""
        self._shares: dict[Hashable, float] = {}
        self._tokens: dict[Hashable, int] = {}
        """Computed since the latest instant at which energy was divided."""
        self._last = meter.joules()

    def begin(self, key: Hashable) -> None:
        """A request starts."""
        self._settle()
        self._shares[key] = 0.0

    def computed(self, key: Hashable, tokens: int) -> None:
        """Tokens of a request, of its prompt or answer, were computed."""
        if key in self._shares:
            self._tokens[key] = self._tokens.get(key, 0) + tokens

    def end(self, key: Hashable) -> Energy | None:
        """A request is done: its share; None where the meter has no reading or the request is unknown."""
        self._settle()
        joules = self._shares.pop(key, None)
        self._tokens.pop(key, None)
        if joules is None or self._last is None:
            return None
        return Energy(joules=joules, source=self.meter.source, basis=self.meter.basis)

    def _settle(self) -> None:
        now = self.meter.joules()
        if now is None or self._last is None:
            self._last = now
            return
        gone, self._last = now - self._last, now
        if not self._shares:
            self.idle_j += gone
            return
        work: dict[Hashable, int] = self._tokens or dict.fromkeys(self._shares, 1)
        total = sum(work.values())
        for key, tokens in work.items():
            self._shares[key] += gone * tokens / total
        self._tokens = {}
