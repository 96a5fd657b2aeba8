"""Forecasts of arrival rates with error bars, learnt as the load comes: what scalers plan ahead by.

arrivals --> bins of bin_s --> simple forecasts of the bin at horizon_s --> their weighted mean
                                    `-- errors of each, when that bin has come: weights and bars
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from pentad.ranges import in_range

KEPT_ERRORS = 120
"""Latest errors that the error bars are made of."""
_FORGET = 0.98
"""What a past error still weighs one bin later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """An expected value and the bars that the true one lies between, as often as asked for."""

    mean: float
    low: float
    high: float


class _Last:
    """The value of now, for ever."""

    def __init__(self) -> None:
        self._value = 0.0

    def see(self, value: float) -> None:
        self._value = value

    def ahead(self, bins: int) -> float | None:  # noqa: ARG002 - the same at every distance
        return self._value


class _Level:
    """Exponential smoothing, with or without a damped trend (Holt, 1957; Gardner and McKenzie, 1985)."""

    def __init__(self, alpha: float, beta: float = 0.0, damping: float = 0.9) -> None:
        self._alpha, self._beta, self._damping = alpha, beta, damping
        self._level: float | None = None
        self._trend = 0.0

    def see(self, value: float) -> None:
        if self._level is None:
            self._level = value
            return
        expected = self._level + self._damping * self._trend
        level = expected + self._alpha * (value - expected)
        self._trend = self._damping * self._trend + self._beta * (
            level - self._level - self._damping * self._trend
        )
        self._level = level

    def ahead(self, bins: int) -> float | None:
        if self._level is None:
            return None
        damping = self._damping
        return self._level + self._trend * damping * (1 - damping**bins) / (1 - damping)


class _Seasonal:
    """Additive Holt-Winters (Winters, 1960): a level, a damped trend and one value per bin of the season.

    Silent for the first season, from whose bins it takes its first seasonal values.
    """

    def __init__(self, season: int, alpha: float = 0.15, gamma: float = 0.3) -> None:
        self._season, self._gamma = season, gamma
        self._level = _Level(alpha, 0.02)
        self._values: list[float] = []
        self._seen = 0

    def see(self, value: float) -> None:
        self._seen += 1
        if self._seen <= self._season:
            self._values.append(value)
            if self._seen == self._season:
                mean = sum(self._values) / self._season
                self._values = [each - mean for each in _smooth(self._values)]
                self._level.see(mean)
            return
        at = (self._seen - 1) % self._season
        self._level.see(value - self._values[at])
        level = self._level.ahead(1) or 0.0
        self._values[at] += self._gamma * (value - level - self._values[at])

    def ahead(self, bins: int) -> float | None:
        if self._seen < self._season:
            return None
        return (self._level.ahead(bins) or 0.0) + self._values[(self._seen - 1 + bins) % self._season]


def _smooth(values: list[float]) -> list[float]:
    """A circular moving mean over a twentieth of the season: one season's noise is no pattern."""
    half = len(values) // 40
    around = np.concatenate([values[len(values) - half :], values, values[:half]])
    smoothed: list[float] = np.convolve(around, np.ones(2 * half + 1) / (2 * half + 1), mode="valid").tolist()
    return smoothed


@dataclass(slots=True)
class RateForecaster:
    """Forecasts how many per second there will be `horizon_s` from now.

    Several simple forecasts are made for each bin; the answer is their mean, weighted by the inverse square
    of what each has been off by at this very horizon lately. The bars are quantiles of the latest
    errors of that mean. A bin costs some microseconds.

    Args:
        bin_s: width of a bin.
        horizon_s: how far ahead; a multiple of bins is taken, one at least.
        season_s: a period after which the load repeats itself, as a day; None: none is known.
        coverage: how often the truth is to lie between the bars.

    Raises:
        InvalidRequest: a number is out of range.

    Source: combination by inverse squared error (Bates and Granger, 1969) of last value, exponential
    smoothing, damped trend (Holt) and, with a season, additive Holt-Winters.
    """

    bin_s: float
    horizon_s: float
    season_s: float | None = None
    coverage: float = 0.9
    _bins: int = field(init=False)
    _experts: list[_Last | _Level | _Seasonal] = field(init=False)
    _errors: list[float] = field(init=False)
    _pending: deque[tuple[float, list[float | None]]] = field(init=False, default_factory=deque)
    _residuals: deque[float] = field(init=False)
    _total: float = field(init=False, default=0.0)
    _next_s: float | None = field(init=False, default=None)
    _looked_s: float = field(init=False, default=0.0)
    _partial: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        in_range("bin_s", self.bin_s, above=0)
        in_range("horizon_s", self.horizon_s, least=0)
        in_range("season_s", self.season_s, least=2 * self.bin_s)
        in_range("coverage", self.coverage, above=0, most=0.999)
        self._bins = max(1, round(self.horizon_s / self.bin_s))
        self._experts = [_Last(), _Level(0.3), _Level(0.05), _Level(0.3, 0.1, damping=0.98)]
        if self.season_s is not None:
            self._experts.append(_Seasonal(round(self.season_s / self.bin_s)))
        self._errors = [0.0] * len(self._experts)
        self._residuals = deque(maxlen=KEPT_ERRORS)

    def count(self, at_s: float, total: float) -> None:
        """Tells how many there have been since the beginning; in order of time.

        What came between two calls is spread evenly over the time between them.
        """
        if self._next_s is None:
            self._next_s, self._looked_s, self._total = at_s + self.bin_s, at_s, total
            return
        came, since = total - self._total, at_s - self._looked_s
        while at_s >= self._next_s:
            part = came * (self._next_s - self._looked_s) / since if since else 0.0
            self._see((self._partial + part) / self.bin_s)
            came, since, self._partial = came - part, at_s - self._next_s, 0.0
            self._looked_s, self._next_s = self._next_s, self._next_s + self.bin_s
        self._partial += came
        self._looked_s, self._total = at_s, total

    def predict(self) -> Forecast:
        """The rate `horizon_s` from now; all 0 before the first bin is full."""
        mean = self._mean([expert.ahead(self._bins) for expert in self._experts])
        if (
            len(self._residuals) < 8
        ):  # too few to tell quantiles: as a Poisson count of the horizon would scatter
            spread = 1.64 * math.sqrt(max(mean, 0.0) / self.bin_s)
            return Forecast(mean=mean, low=max(0.0, mean - spread), high=mean + spread)
        tail = (1 - self.coverage) / 2
        low, high = np.quantile(self._residuals, (tail, 1 - tail))
        return Forecast(
            mean=mean, low=max(0.0, mean + min(0.0, float(low))), high=mean + max(0.0, float(high))
        )

    def _see(self, rate: float) -> None:
        """A bin is full: forecasts that were made for it are judged, and those for a later one made."""
        if len(self._pending) == self._bins:
            mean, made = self._pending.popleft()
            self._residuals.append(rate - mean)
            for i, value in enumerate(made):
                # One that said nothing yet counts as the worst, so that it begins with little weight.
                off = max(self._errors) if value is None else (rate - value) ** 2
                self._errors[i] = _FORGET * self._errors[i] + (1 - _FORGET) * off
        for expert in self._experts:
            expert.see(rate)
        values = [expert.ahead(self._bins) for expert in self._experts]
        self._pending.append((self._mean(values), values))

    def _mean(self, values: list[float | None]) -> float:
        least = 1e-9 + 1e-6 * max(self._errors)
        pairs = [
            (value, 1 / (error + least) ** 2)
            for value, error in zip(values, self._errors, strict=True)
            if value is not None
        ]
        weight = sum(share for _, share in pairs)
        return max(0.0, sum(value * share for value, share in pairs) / weight) if pairs else 0.0


class LoadForecaster:
    """Request and token rates per kind of agent (or tenant, or model), each with its error bars.

    Args:
        bin_s, horizon_s, season_s, coverage: as RateForecaster takes them.
    """

    def __init__(
        self, *, bin_s: float, horizon_s: float, season_s: float | None = None, coverage: float = 0.9
    ) -> None:
        self._options = (bin_s, horizon_s, season_s, coverage)
        self._series: dict[tuple[str, str], RateForecaster] = {}
        self._totals: dict[tuple[str, str], float] = {}
        self._begin_s: float | None = None

    def observe(self, kind: str, at_s: float, *, requests: int = 1, tokens: int = 0) -> None:
        """Requests of a kind have arrived, with so many tokens of prompts and expected answers."""
        if self._begin_s is None:
            self._begin_s = at_s
        for what, amount in (("requests", requests), ("tokens", tokens)):
            key = (kind, what)
            if key not in self._series:
                self._series[key] = RateForecaster(*self._options)
                self._series[key].count(self._begin_s, 0.0)
            self._totals[key] = self._totals.get(key, 0.0) + amount
            self._series[key].count(at_s, self._totals[key])

    def predict(self, now_s: float) -> dict[str, dict[str, Forecast]]:
        """Per kind, `requests` and `tokens` per second `horizon_s` from now."""
        found: dict[str, dict[str, Forecast]] = {}
        for (kind, what), series in self._series.items():
            series.count(now_s, self._totals[kind, what])
            found.setdefault(kind, {})[what] = series.predict()
        return found
