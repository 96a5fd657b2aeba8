"""Learns how classes of agents should share slots: the cross-entropy method over made-up mixes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pentad.resource.scaling.learnt import Array, Learnt, demand_of
from pentad.resource.simulator.slot_mixes import Allocation, Mix, mean_in_system, split


def made_up_mixes(seed: int, count: int) -> tuple[Mix, ...]:
    """Mixes to learn from: three classes at 60 to 90% of the slots, half of them with phases that shift."""
    draw = np.random.default_rng(seed)
    mixes = []
    for i in range(count):
        service = tuple(draw.uniform(2, 8, 3).tolist())
        phases = []
        for _ in range(1 if i % 2 else 3):
            shares = draw.dirichlet(np.ones(3)) * draw.uniform(0.6, 0.9) * 16
            phases.append(tuple((shares / np.array(service)).tolist()))
        mixes.append(Mix(rates_per_s=tuple(phases), service_s=service))
    return tuple(mixes)


def policy(weights: Sequence[float], slots: int) -> Allocation:
    """The allocation of these weights, as `mean_in_system` takes it."""

    def allocate(queue: Array, coming: Array, now: Array) -> Array:
        return split(demand_of(weights, queue, coming, now), slots)

    return allocate


def learn(
    seed: int = 0, *, rounds: int = 6, candidates: int = 12, kept: int = 4, mixes: int = 4, episodes: int = 6
) -> Learnt:
    """The weights that leave the fewest requests in the system, relative to what each mix leaves at best.

    In each round candidates are drawn around a mean, all meet the same episodes, and mean and scatter of the
    best make the next round's. Equal seeds give equal weights.
    """
    draw = np.random.default_rng(seed)
    mean, scatter = np.zeros(4), np.ones(4)
    curve = []
    training = made_up_mixes(seed, mixes)
    for number in range(rounds):
        drawn = mean + scatter * draw.standard_normal((candidates, 4))
        costs = np.array(
            [
                [
                    mean_in_system(mix, policy(each, mix.slots), seed=seed + number, episodes=episodes).mean()
                    for mix in training
                ]
                for each in drawn
            ]
        )
        scores = (costs / costs.min(axis=0)).mean(axis=1)
        best = drawn[np.argsort(scores, kind="stable")[:kept]]
        mean, scatter = best.mean(axis=0), best.std(axis=0) + 0.05
        curve.append(float(costs.mean()))
    return Learnt(weights=tuple(round(float(each), 3) for each in mean), curve=tuple(curve))
