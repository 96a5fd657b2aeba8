"""Operators of a workflow: a model for each that keeps the accuracy, and tiers that run them cheaply."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A kind of replica of one model, on one tier."""

    name: str
    tier: str
    capacity: float
    """Requests per second of one."""
    price_per_s: float
    most: int
    """Replicas that there can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorModel:
    """A model that an operator may run, with the tiers that can run it."""

    name: str
    quality: float
    """Share of its inputs that it handles well, 0 to 1."""
    workers: tuple[Worker, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorChoice:
    """What one operator runs on."""

    model: OperatorModel
    counts: Mapping[str, int]
    """Replicas by worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorPlan:
    """Choices of all operators in their order."""

    choices: tuple[OperatorChoice, ...]
    quality: float
    """Product of the operators' own: an answer is right where each part of it is."""
    price_per_s: float
    """Of replicas and of what passes between tiers."""


def plan_operators(
    operators: Sequence[Sequence[OperatorModel]],
    needs: Sequence[float],
    *,
    quality: float,
    beam: int = 8,
    transfer_price: float = 0.0,
) -> OperatorPlan | None:
    """The cheapest plan found that answers what is needed with at least `quality`.

    First models: operator by operator, the `beam` cheapest beginnings stay from which the quality can still
    be reached, each priced by its replicas alone. Then workers: for each whole choice the replicas of an
    operator are put on tiers, and what passes between operators on different ones is priced. None where no
    choice reaches quality and load.

    Args:
        operators: of each the models that it may run.
        needs: requests per second that each has to answer.
        transfer_price: money for a request that passes from one tier to another.

    Source: JellyBean (Wu et al., VLDB 2022, sections 5.1: model selection by beam search, 5.2: worker
    assignment). Our difference: qualities multiply, where theirs are profiled together; tiers are chosen by
    dynamic programming along the chain.
    """
    best_behind = [1.0]
    for models in reversed(operators):
        best_behind.append(best_behind[-1] * max((m.quality for m in models), default=0.0))
    best_behind.reverse()
    kept: list[tuple[float, float, tuple[OperatorModel, ...]]] = [(0.0, 1.0, ())]
    for place, (models, need) in enumerate(zip(operators, needs, strict=True)):
        grown = [
            (cost + least, reached * model.quality, (*chosen, model))
            for cost, reached, chosen in kept
            for model in models
            if (least := _least(model, need)) < math.inf
            and reached * model.quality * best_behind[place + 1] >= quality - 1e-12
        ]
        kept = sorted(grown, key=lambda one: (one[0], -one[1]))[:beam]
    plans = [_assigned(chosen, reached, needs, transfer_price) for _, reached, chosen in kept]
    return min(plans, key=lambda plan: (plan.price_per_s, -plan.quality), default=None)


def _least(model: OperatorModel, per_s: float) -> float:
    """Money per second of the model by itself."""
    return min((price for price, _ in _ways(model, per_s).values()), default=math.inf)


def _ways(model: OperatorModel, per_s: float) -> dict[str, tuple[float, Mapping[str, int]]]:
    """By tier that comes first: money per second and replicas; others help out where it is full."""
    found: dict[str, tuple[float, Mapping[str, int]]] = {}
    for first in model.workers:
        rest = sorted(
            (w for w in model.workers if w is not first), key=lambda w: w.price_per_s / max(w.capacity, 1e-12)
        )
        left, price, counts = per_s, 0.0, dict[str, int]()
        for worker in (first, *rest):
            count = 0
            if worker.capacity > 0:
                count = min(worker.most, math.ceil(left / worker.capacity - 1e-9))
            if count > 0:
                counts[worker.name] = count
                price += count * worker.price_per_s
                left -= count * worker.capacity
            if left <= 1e-9:
                found[first.tier] = min(found.get(first.tier, (math.inf, {})), (price, counts), key=_price)
                break
    return found


def _price(way: tuple[float, Mapping[str, int]]) -> float:
    return way[0]


def _assigned(
    models: Sequence[OperatorModel], quality: float, needs: Sequence[float], transfer_price: float
) -> OperatorPlan:
    """The tiers of a chain of models at the least price, transfers included."""
    ends: dict[str, tuple[float, tuple[OperatorChoice, ...]]] = {}
    for place, (model, need) in enumerate(zip(models, needs, strict=True)):
        ahead: dict[str, tuple[float, tuple[OperatorChoice, ...]]] = {}
        for tier, (price, counts) in _ways(model, need).items():
            choice = OperatorChoice(model=model, counts=counts)
            if place == 0:
                ahead[tier] = (price, (choice,))
                continue
            passing = need * transfer_price
            before = min(
                ((total + (0.0 if at == tier else passing), past) for at, (total, past) in ends.items()),
                key=lambda one: one[0],
            )
            ahead[tier] = (before[0] + price, (*before[1], choice))
        ends = ahead
    total, choices = min(ends.values(), key=lambda one: one[0])
    return OperatorPlan(choices=choices, quality=quality, price_per_s=total)
