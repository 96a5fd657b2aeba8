"""A learnt allocation of devices to classes of agents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pentad.resource.scaling.base import Pool, Scaling
from pentad.resource.scaling.demand import slots_of
from pentad.resource.scaling.shares import Shares, Sharing

Array = npt.NDArray[np.float64]
WEIGHTS = (0.01, -0.615, -0.009, -0.028)
"""What `learn` finds with seed 0, as logarithms: of requests that are there, work to come, devices now; and
the exponent's. Its curve, the mean cost of each round: 32.1, 15.7, 12.3, 12.2, 12.9, 11.9."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What learning gave."""

    weights: tuple[float, ...]
    curve: tuple[float, ...]
    """The mean cost of each round's candidates."""


def demand_of(weights: Sequence[float], present: Array, coming: Array, now: Array) -> Array:
    """How much each class is to have, relative to the others: the policy that is learnt.

    Args:
        weights: of the three, as logarithms, and the exponent's.
        present: devices' worth of requests that are there, [..., classes].
        coming: devices' worth of work that comes.
        now: devices of each class.
    """
    a, b, c, exponent = (math.exp(weight) for weight in weights)
    found: Array = np.power(a * present + b * coming + c * now + 1e-6, exponent)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Rl(Shares):
    """Shares devices among models by a policy that was learnt, from what is there, what comes and who has
    what.

    Devices beyond what requests need stay free. For models, or classes of agents, that share devices.

    Source: the survey's RL-based allocation (section V-A3). Ours is a policy of four weights that holds for
    any number of classes, learnt by the cross-entropy method (Rubinstein, 1999) over episodes of
    `simulator.slot_mixes`; `simulator.slot_learning.learn` learns it anew.
    """

    name: ClassVar[str] = "rl"

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Allocating(self)

    def cost(self, members: int) -> float:
        return 8e-5 + 2e-6 * members


class _Allocating(Sharing):
    """As of `shares`, but for who gets how much where devices lack."""

    def given(self, pools: Mapping[str, Pool], wanted: Mapping[str, int]) -> dict[str, int]:
        """What everyone needs if there is as much, else by the policy; who needs any has one before others
        more."""
        if sum(wanted.values()) <= self._devices:
            return dict(wanted)
        present = np.array([pool.in_flight / slots_of(pool) for pool in pools.values()])
        coming = np.array([self._demand[m].ahead().mean / slots_of(p) for m, p in pools.items()])
        now = np.array([float(len(pool.members)) for pool in pools.values()])
        wish = dict(zip(pools, demand_of(WEIGHTS, present, coming, now).tolist(), strict=True))
        given = dict.fromkeys(pools, 0)
        for _ in range(self._devices):
            short = [model for model in pools if given[model] < wanted[model]]
            if not short:
                break
            given[max(short, key=lambda model: (given[model] == 0, wish[model] / (given[model] + 0.5)))] += 1
        return given
