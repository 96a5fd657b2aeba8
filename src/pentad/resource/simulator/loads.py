"""Made-up loads whose rate changes: days and nights, and bursts. Seeded; `trace.poisson` is the even one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pentad.ranges import in_range
from pentad.resource.simulator.trace import TraceItem, rescaled


def diurnal(
    count: int,
    *,
    rate_per_s: float,
    period_s: float,
    prompt_tokens: tuple[int, int],
    output_tokens: tuple[int, int],
    seed: int = 0,
) -> tuple[TraceItem, ...]:
    """A load that rises and falls once in `period_s`, and begins at night, when there is none.

    The rate is the peak's times a squared raised cosine, so the peak is 8/3 of the mean.

    Args:
        count: requests.
        rate_per_s: their mean rate over a period.
        period_s: of a day, however long that is.
        prompt_tokens, output_tokens: lengths, drawn evenly from [low, high].
        seed: of all draws.

    Raises:
        InvalidRequest: a number is out of range.
    """
    in_range("period_s", period_s, above=0)
    peak = rate_per_s * 8 / 3

    def rate(at_s: float) -> float:
        return peak * ((1 - math.cos(2 * math.pi * at_s / period_s)) / 2) ** 2

    draw = _begin(count, rate_per_s, seed)
    arrivals = _thinned(count, rate, peak, draw)
    return _items(arrivals, prompt_tokens, output_tokens, draw)


def bursty(
    count: int,
    *,
    rate_per_s: float,
    prompt_tokens: tuple[int, int],
    output_tokens: tuple[int, int],
    factor: float = 6.0,
    burst_s: float = 20.0,
    share: float = 0.1,
    seed: int = 0,
) -> tuple[TraceItem, ...]:
    """A load of calm and bursts: a Markov-modulated Poisson process of two states.

    Args:
        count: requests.
        rate_per_s: their mean rate.
        prompt_tokens, output_tokens: lengths, drawn evenly from [low, high].
        factor: how many times the calm's rate a burst has.
        burst_s: mean duration of a burst.
        share: of the time that is in bursts, above 0 and below 1.
        seed: of all draws.

    Raises:
        InvalidRequest: a number is out of range.
    """
    in_range("factor", factor, least=1)
    in_range("burst_s", burst_s, above=0)
    in_range("share", share, above=0, most=0.99)
    draw = _begin(count, rate_per_s, seed)
    calm = rate_per_s / (1 - share + share * factor)
    arrivals: list[float] = []
    now_s, in_burst = 0.0, False
    while len(arrivals) < count:
        mean_s = burst_s if in_burst else burst_s * (1 - share) / share
        length_s = draw.exponential(mean_s)
        number = draw.poisson(length_s * calm * (factor if in_burst else 1.0))
        arrivals += sorted(now_s + length_s * draw.random(number))
        now_s, in_burst = now_s + length_s, not in_burst
    return _items(arrivals[:count], prompt_tokens, output_tokens, draw)


def _begin(count: int, rate_per_s: float, seed: int) -> np.random.Generator:
    in_range("limit", count, least=1)
    in_range("rate_per_s", rate_per_s, above=0)
    in_range("seed", seed, least=0)
    return np.random.default_rng(seed)


def _thinned(
    count: int, rate: Callable[[float], float], most: float, draw: np.random.Generator
) -> list[float]:
    """Arrivals of a Poisson process whose rate changes (Lewis and Shedler, 1979)."""
    arrivals: list[float] = []
    now_s = 0.0
    while len(arrivals) < count:
        now_s += draw.exponential(1 / most)
        if draw.random() * most < rate(now_s):
            arrivals.append(now_s)
    return arrivals


def _items(
    arrivals: list[float],
    prompt_tokens: tuple[int, int],
    output_tokens: tuple[int, int],
    draw: np.random.Generator,
) -> tuple[TraceItem, ...]:
    prompts: npt.NDArray[np.int64] = draw.integers(*prompt_tokens, size=len(arrivals), endpoint=True)
    outputs: npt.NDArray[np.int64] = draw.integers(*output_tokens, size=len(arrivals), endpoint=True)
    return rescaled(
        (
            TraceItem(id=f"r{i}", arrival_s=float(at), prompt_tokens=int(prompt), output_tokens=int(output))
            for i, (at, prompt, output) in enumerate(zip(arrivals, prompts, outputs, strict=True))
        ),
        1.0,
    )
