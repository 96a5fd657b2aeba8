"""Which strategies are trained, and how each of them is."""

from __future__ import annotations

import pathlib

from pentad import registry
from pentad.errors import InvalidRequest, UnknownName
from pentad.resource.offloading.learning.learnt import LearntOffload
from pentad.resource.offloading.learning.training import TrainingPlan
from pentad.resource.offloading.scenarios import scenario as named


def names() -> tuple[str, ...]:
    """The offload policies that are trained, as they are registered."""
    kinds = {name: registry.load("offload", name) for name in registry.known("offload")}
    return tuple(
        name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, LearntOffload)
    )


def plan(strategy: str, *, scenario: str | None = None, steps: int = 4000, seed: int = 0) -> TrainingPlan:
    """How a strategy is trained.

    Args:
        scenario: the name of one; None takes the strategy's own.

    Raises:
        UnknownName: no such policy learns, or no such scenario.
    """
    if strategy not in (known := names()):
        raise UnknownName(
            f"no offload policy {strategy!r} is trained", hint=registry.near(strategy, known), param="policy"
        )
    kind: type[LearntOffload] = registry.load("offload", strategy)
    fields = dict(kind.training)
    own = fields.pop("scenario")
    return TrainingPlan(strategy=strategy, scenario=named(scenario or own), steps=steps, seed=seed, **fields)


def checkpoint_of(out: pathlib.Path) -> pathlib.Path:
    """The checkpoint beside a policy file. Raises InvalidRequest where there is no such folder."""
    if not out.parent.is_dir():
        raise InvalidRequest(
            f"there is no folder {str(out.parent)!r}", hint="make it, or choose another --out", param="out"
        )
    return out.with_name(out.name + ".checkpoint")
