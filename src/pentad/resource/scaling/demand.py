"""Demand: what a pool needs now and will need, in slots; shared by the scalers that look ahead."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from pentad.ranges import in_range
from pentad.resource.forecast import Forecast, RateForecaster
from pentad.resource.scaling.base import Pool

Number = TypeVar("Number", int, float)


class Demand:
    """Learns from the looks at one pool how many requests come and how long each takes a slot.

    The slots that will be taken are the forecast rate times the time that a request takes one (Little's law);
    that time is the slots' occupation summed over time, by the requests that ended.

    Args:
        bin_s, season_s, coverage: as RateForecaster takes them.
        horizon_s: how far ahead `ahead` looks.
    """

    def __init__(
        self, *, bin_s: float, horizon_s: float, season_s: float | None = None, coverage: float = 0.9
    ) -> None:
        self._rate = RateForecaster(bin_s, horizon_s, season_s, coverage)
        self._taken_s = 0.0
        """Slot seconds."""
        self._last: tuple[float, int] | None = None
        """Instant of the latest look, and the slots taken then."""
        self._ended = 0
        self._arrived = 0
        self.came = 0
        """Requests that arrived between the latest two looks."""

    def look(self, pool: Pool, now_s: float) -> None:
        """Takes in what a pool shows; in order of time."""
        if self._last is not None:
            self._taken_s += (now_s - self._last[0]) * self._last[1]
        self._last = now_s, sum(member.running for member in pool.members)
        self._ended = max(0, pool.arrived - pool.in_flight)
        self._rate.count(now_s, float(pool.arrived))
        self.came, self._arrived = pool.arrived - self._arrived, pool.arrived

    @property
    def service_s(self) -> float:
        """How long a request takes a slot, on the mean; 0 before one has ended."""
        return self._taken_s / self._ended if self._ended else 0.0

    def rate(self) -> Forecast:
        """Requests per second at the horizon."""
        return self._rate.predict()

    def ahead(self) -> Forecast:
        """Slots taken at the horizon."""
        rate, service_s = self.rate(), self.service_s
        return Forecast(mean=rate.mean * service_s, low=rate.low * service_s, high=rate.high * service_s)


def slots_of(pool: Pool) -> int:
    """Of one replica: the most that any of its members and places has."""
    return max([*(m.slots for m in pool.members), *(p.slots for p in pool.places)], default=1)


class Calm(Generic[Number]):
    """The highest of the values of the latest `calm_s`: what goes up counts at once, what goes down later."""

    def __init__(self, calm_s: float) -> None:
        self._calm_s = calm_s
        self._history: deque[tuple[float, Number]] = deque()

    def highest(self, now_s: float, value: Number) -> Number:
        """With this newest value."""
        history = self._history
        while history and history[-1][1] <= value:
            history.pop()
        history.append((now_s, value))
        while history[0][0] < now_s - self._calm_s:
            history.popleft()
        return history[0][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class LooksAhead:
    """Base of scalers that provide for a forecast: its options, and who counts a model's demand by them."""

    least: int = 0
    """Fewest replicas of a model; of `mark`, steady ones."""
    horizon_s: float = 60.0
    """How far ahead it looks: about a cold start and some decisions."""
    bin_s: float = 10.0
    """Width of the bins that arrivals are counted in."""
    season_s: float | None = None
    """A period after which the load repeats itself, as 86400 for a day; null: none is known."""
    coverage: float = 0.8
    """The forecast's upper error bar is what is provided for; this share of loads lies between the bars."""
    interval_s: float = 1.0
    """Seconds between decisions."""

    colocates: ClassVar[bool] = False

    def __post_init__(self) -> None:
        in_range("least", self.least, least=0)
        in_range("horizon_s", self.horizon_s, least=0)
        in_range("bin_s", self.bin_s, above=0)
        in_range("season_s", self.season_s, least=2 * self.bin_s)
        in_range("coverage", self.coverage, above=0, most=0.999)
        in_range("interval_s", self.interval_s, above=0)

    @property
    def least_replicas(self) -> int:
        return self.least

    def cost(self, members: int) -> float:
        return 4e-5 + 2e-6 * members

    def demand(self) -> Demand:
        """A counter for one model, which has seen nothing yet."""
        return Demand(
            bin_s=self.bin_s, horizon_s=self.horizon_s, season_s=self.season_s, coverage=self.coverage
        )
