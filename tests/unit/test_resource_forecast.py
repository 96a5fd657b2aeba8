"""Forecasts: better than the last value at the horizon, with bars that hold what they say."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest

from evidence.plugin import Measure
from pentad.errors import InvalidRequest
from pentad.resource.forecast import LoadForecaster, RateForecaster
from pentad.resource.simulator import read_trace

BURSTY = pathlib.Path(__file__).parents[3] / "shared" / "data" / "azure-llm-2023-code.csv"
HORIZON_S = 300.0


def fed(values: list[float], *, bin_s: float = 1.0, **options: float) -> RateForecaster:
    forecaster = RateForecaster(bin_s, **{"horizon_s": bin_s, **options})
    total = 0.0
    forecaster.count(0.0, 0.0)
    for i, value in enumerate(values):
        total += value * bin_s
        forecaster.count((i + 1) * bin_s, total)
    return forecaster


class Errors:
    """Of forecasts and of last values, over bins that had arrivals."""

    def __init__(self, counts: list[int], forecaster: RateForecaster, *, begin: int) -> None:
        bin_s = forecaster.bin_s
        ahead = round(forecaster.horizon_s / bin_s)
        ours, last, within = [], [], []
        total = 0
        forecaster.count(0.0, 0.0)
        for i, count in enumerate(counts[:-ahead]):
            total += count
            forecaster.count((i + 1) * bin_s, float(total))
            truth = counts[i + ahead] / bin_s
            if i < begin or not truth:
                continue
            made = forecaster.predict()
            ours.append(abs(made.mean - truth) / truth)
            last.append(abs(count / bin_s - truth) / truth)
            within.append(made.low <= truth <= made.high)
        self.ours, self.last = float(np.mean(ours)), float(np.mean(last))
        self.coverage = float(np.mean(within))


class TestRates:
    def test_a_constant_rate_is_forecast_exactly(self) -> None:
        made = fed([4.0] * 30, horizon_s=5.0).predict()
        assert (made.low, made.mean, made.high) == pytest.approx((4.0, 4.0, 4.0))

    def test_what_came_between_two_looks_is_spread_over_their_bins(self) -> None:
        forecaster = RateForecaster(1.0, 1.0)
        forecaster.count(0.0, 0.0)
        forecaster.count(10.0, 30.0)
        assert forecaster.predict().mean == pytest.approx(3.0)

    def test_a_season_is_learnt_and_foreseen(self) -> None:
        def wave(i: int) -> float:
            return 10 + 8 * math.sin(2 * math.pi * i / 40)

        values = [wave(i) for i in range(200)]
        knowing = fed(values, horizon_s=10.0, season_s=40.0).predict().mean
        unknowing = fed(values, horizon_s=10.0).predict().mean
        truth = wave(209)
        assert abs(knowing - truth) < 1.0 < abs(unknowing - truth)

    def test_a_trend_goes_on(self) -> None:
        assert fed([float(i) for i in range(60)], horizon_s=5.0).predict().mean > 60

    def test_nothing_is_known_before_a_bin_is_full_and_no_rate_is_negative(self) -> None:
        assert fed([]).predict().mean == 0.0
        falling = fed([30.0 - i for i in range(31)], horizon_s=10.0).predict()
        assert 0 <= falling.low <= falling.mean <= falling.high

    @pytest.mark.parametrize("options", [{"bin_s": 0}, {"horizon_s": -1}, {"season_s": 1}, {"coverage": 1}])
    def test_impossible_options_are_refused(self, options: dict[str, float]) -> None:
        with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is "):
            RateForecaster(**{"bin_s": 1.0, "horizon_s": 1.0, **options})


@pytest.mark.row("res-forecast", "mechanism")
def test_requests_and_tokens_are_forecast_per_kind_of_agent_with_bars() -> None:
    load = LoadForecaster(bin_s=10.0, horizon_s=30.0)
    draw = np.random.default_rng(1)
    for second in range(600):
        for _ in range(draw.poisson(2.0)):
            load.observe("writer", second, tokens=300)
        for _ in range(draw.poisson(0.5)):
            load.observe("coder", second, tokens=4000)
    made = load.predict(600.0)
    assert set(made) == {"writer", "coder"}
    assert made["writer"]["requests"].mean == pytest.approx(2.0, rel=0.25)
    assert made["coder"]["tokens"].mean == pytest.approx(2000, rel=0.4)
    for kind in made.values():
        for forecast in kind.values():
            assert forecast.low < forecast.mean < forecast.high


@pytest.mark.row("res-forecast", "effect")
def test_days_are_forecast_a_fifth_better_than_by_the_last_value(measured: Measure) -> None:
    draw = np.random.default_rng(3)
    minutes = np.arange(4 * 1440)
    rates = 3.0 * (1.05 - np.cos(2 * np.pi * minutes / 1440)) / 2
    counts = draw.poisson(rates * 60).tolist()
    found = Errors(counts, RateForecaster(60.0, HORIZON_S, season_s=86_400.0), begin=1440)
    measured("MAPE at 5 min below the last value's, made-up days", 1 - found.ours / found.last, at_least=0.2)
    measured("share of true values between bars for 0.9", found.coverage, at_least=0.8)


@pytest.mark.row("res-forecast", "effect")
@pytest.mark.skipif(not BURSTY.exists(), reason=f"there is no {BURSTY.name} in shared/data")
def test_the_bursts_of_a_public_trace_are_forecast_a_fifth_better_than_by_the_last_value(
    measured: Measure,
) -> None:
    # An hour long: no day to learn, but bursts that a last value takes for the rule.
    arrivals = [item.arrival_s for item in read_trace(BURSTY)]
    counts = np.bincount((np.array(arrivals) / 10).astype(int)).tolist()
    found = Errors(counts, RateForecaster(10.0, HORIZON_S), begin=60)
    measured(
        "MAPE at 5 min below the last value's, Azure code 2023", 1 - found.ours / found.last, at_least=0.2
    )
