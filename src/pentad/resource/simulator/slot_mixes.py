"""Classes of agents that share slots: a small world, many episodes at once, in which allocations are
learnt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Allocation = Callable[[Array, Array, Array], Array]
"""From requests in each class, the slots' worth of work that comes, and slots now, all [episodes, classes],
to the slots that each class is to have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What classes ask for: one row of rates per phase, each phase as long as the others."""

    rates_per_s: tuple[tuple[float, ...], ...]
    service_s: tuple[float, ...]
    """How long a request of each class takes a slot, on the mean."""
    slots: int = 16
    seconds: int = 200
    move_s: int = 3
    """How long a slot that changes its class is of no use."""


def mean_in_system(mix: Mix, allocate: Allocation, *, seed: int, episodes: int) -> Array:
    """Requests waiting or running, the mean over time, of each episode; the mean time in the system is
    proportional to it (Little's law).

    Time goes by seconds. Arrivals are Poisson, a running request ends with the same chance in each second;
    equal seeds give equal arrivals. The rate that an allocation sees is smoothed over about twenty seconds.
    """
    draw = np.random.default_rng(seed)
    service = np.array(mix.service_s)
    classes = len(service)
    phases = np.array(mix.rates_per_s)
    queue = np.zeros((episodes, classes))
    seen = np.repeat(phases.mean(axis=0)[None] * service, episodes, axis=0)
    slots = np.full((episodes, classes), mix.slots // classes, np.float64)
    slots[:, : mix.slots % classes] += 1
    moving: list[Array] = []
    total = np.zeros(episodes)
    for second in range(mix.seconds):
        rates = phases[second * len(phases) // mix.seconds]
        came = draw.poisson(rates, (episodes, classes)).astype(np.float64)
        luck = draw.random((episodes, classes))
        queue += came
        seen += 0.05 * (came * service - seen)
        wanted = allocate(queue, seen, slots)
        moving.append(np.maximum(wanted - slots, 0.0))
        slots = wanted
        usable = slots - np.minimum(slots, sum(moving[-mix.move_s :], np.zeros((episodes, classes))))
        running = np.minimum(queue, usable)
        mean = running / service
        # About binomial: its mean and scatter, by one draw.
        ended = np.floor(mean + np.sqrt(mean * np.maximum(0.0, 1 - 1 / service)) * (2 * luck - 1) * 1.7 + 0.5)
        queue -= np.clip(ended, 0.0, running)
        total += queue.sum(axis=1)
    return total / mix.seconds


def split(demand: Array, slots: int) -> Array:
    """So many slots shared out in proportion to demand by largest remainder, [episodes, classes]; ties to the
    first."""
    demand = np.maximum(demand, 1e-9)
    quota = demand / demand.sum(axis=1, keepdims=True) * slots
    given = np.floor(quota + 1e-9)
    left = slots - given.sum(axis=1)
    rank = np.argsort(np.argsort(given - quota, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(given + (rank < left[:, None]), np.float64)
