"""Pipelines of models: what a configuration makes of a sample of arrivals, and the cheapest that is in time.

requests --> stage 1: queue, replicas, batches --> stage 2 ... --> answered within deadline_s, share of them
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pentad.errors import Infeasible


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOption:
    """A kind of replica that a stage can run on."""

    name: str
    price_per_s: float
    fixed_s: float
    """Of a batch, however many requests are in it."""
    item_s: float
    """That each request of a batch adds."""
    most: int = 64
    """Requests in a batch at most."""

    def batch_s(self, requests: int) -> float:
        """Seconds that a batch of so many takes."""
        return self.fixed_s + requests * self.item_s


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSize:
    """How a stage is provided for."""

    option: StageOption
    batch: int = 1
    replicas: int = 1

    @property
    def per_s(self) -> float:
        """Requests per second of one replica."""
        return self.batch / self.option.batch_s(self.batch)

    @property
    def price_per_s(self) -> float:
        return self.replicas * self.option.price_per_s


def latencies(arrivals: Sequence[float], stages: Sequence[StageSize]) -> list[float]:
    """How long each request takes through all stages, each with one queue, replicas, and batches of what
    waits."""
    began = at = sorted(arrivals)
    order = list(range(len(at)))
    for stage in stages:
        done = _through(at, stage)
        ranked = sorted(range(len(done)), key=done.__getitem__)
        order = [order[i] for i in ranked]
        at = [done[i] for i in ranked]
    ended = [0.0] * len(order)
    for place, i in enumerate(order):
        ended[i] = at[place]
    return [end - begin for begin, end in zip(began, ended, strict=True)]


def _through(arrivals: Sequence[float], stage: StageSize) -> list[float]:
    free = [0.0] * stage.replicas
    done: list[float] = []
    while len(done) < len(arrivals):
        first = len(done)
        begin_s = max(heapq.heappop(free), arrivals[first])
        last = first + 1
        while last < len(arrivals) and last - first < stage.batch and arrivals[last] <= begin_s:
            last += 1
        end_s = begin_s + stage.option.batch_s(last - first)
        done += [end_s] * (last - first)
        heapq.heappush(free, end_s)
    return done


def in_time(arrivals: Sequence[float], stages: Sequence[StageSize], deadline_s: float, share: float) -> bool:
    """Whether that share of a sample is answered before the deadline."""
    return float(np.quantile(latencies(arrivals, stages), share, method="higher")) <= deadline_s


def plan_pipeline(
    stages: Sequence[Sequence[StageOption]],
    arrivals: Sequence[float],
    deadline_s: float,
    *,
    share: float = 0.99,
) -> tuple[StageSize, ...]:
    """The cheapest sizes found for a sample of arrivals, each stage with its own hardware, batch and
    replicas.

    It begins with each stage on its quickest hardware with batches of one, and adds replicas where requests
    wait longest until the sample is in time. Then, as long as it stays in time, it takes the step that saves
    most of: twice the batch with as many fewer replicas, one replica less, cheaper hardware.

    Args:
        stages: the options of each.
        arrivals: instants of a sample of the load.
        deadline_s: of the whole pipeline.
        share: of the sample that must be in time.

    Raises:
        Infeasible: not even the quickest hardware is in time.

    Source: InferLine (Crankshaw et al., SoCC'20, section 4). Our difference: replicas are lowered as soon as
    a larger batch allows, in one step, since a larger batch by itself saves nothing.
    """
    quickest = tuple(
        StageSize(option=min(options, key=lambda option: option.batch_s(1))) for options in stages
    )
    alone_s = sum(stage.option.batch_s(1) for stage in quickest)
    if alone_s > deadline_s:
        raise Infeasible(
            f"one request takes {alone_s:.3g} s through the pipeline on the quickest hardware, "
            f"its deadline is {deadline_s:.3g} s",
            hint="set a longer deadline_s, or add faster devices",
            param="deadline_s",
        )
    sizes = _enough(quickest, arrivals, deadline_s, share)
    while True:
        steps = sorted(_cheaper(sizes, stages, arrivals), key=_price)
        sizes, before = next(
            (
                (step, sizes)
                for step in steps
                if _price(step) < _price(sizes) - 1e-12 and in_time(arrivals, step, deadline_s, share)
            ),
            (sizes, None),
        )
        if before is None:
            return sizes


def _price(sizes: Sequence[StageSize]) -> float:
    return sum(stage.price_per_s for stage in sizes)


def _enough(
    sizes: tuple[StageSize, ...], arrivals: Sequence[float], deadline_s: float, share: float
) -> tuple[StageSize, ...]:
    """Replicas added to the busiest stage until the sample is in time."""
    rate = len(arrivals) / max(arrivals[-1] - arrivals[0], 1e-9)
    sizes = tuple(replace(stage, replicas=max(1, math.ceil(rate / stage.per_s))) for stage in sizes)
    while not in_time(arrivals, sizes, deadline_s, share):
        busiest = max(range(len(sizes)), key=lambda i: rate / (sizes[i].per_s * sizes[i].replicas))
        sizes = _with(sizes, busiest, replace(sizes[busiest], replicas=sizes[busiest].replicas + 1))
    return sizes


def _cheaper(
    sizes: tuple[StageSize, ...], stages: Sequence[Sequence[StageOption]], arrivals: Sequence[float]
) -> list[tuple[StageSize, ...]]:
    """The steps from a configuration, whether or not they are in time."""
    rate = len(arrivals) / max(arrivals[-1] - arrivals[0], 1e-9)
    found = []
    for i, (stage, options) in enumerate(zip(sizes, stages, strict=True)):
        if stage.replicas > 1:
            found.append(_with(sizes, i, replace(stage, replicas=stage.replicas - 1)))
        if 2 * stage.batch <= stage.option.most:
            larger = replace(stage, batch=2 * stage.batch)
            found += [
                _with(sizes, i, replace(larger, replicas=count))
                for count in range(max(1, math.ceil(rate / larger.per_s)), stage.replicas)
            ]
        for option in options:
            if option.price_per_s < stage.option.price_per_s:
                other = StageSize(option=option, batch=min(stage.batch, option.most))
                least = max(1, math.ceil(rate / other.per_s))
                found += [_with(sizes, i, replace(other, replicas=count)) for count in (least, least + 1)]
    return found


def _with(sizes: tuple[StageSize, ...], at: int, stage: StageSize) -> tuple[StageSize, ...]:
    return (*sizes[:at], stage, *sizes[at + 1 :])
