"""Launcher: a plan as the command and the settings by which another engine carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from pentad.errors import Incompatible
from pentad.resource.placement.base import Workload
from pentad.resource.placement.plan import Plan, Replica

UNEVEN = 1e-3
"""Shares closer than this are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """A plan as these engines know plans: so many equal copies, stages and shares."""

    data: int
    """Copies of the whole model."""
    pipeline: int
    """Stages of a copy, of as equal numbers of layers as there can be."""
    tensor: int
    """Devices that share each layer of a stage in equal parts."""

    @property
    def devices(self) -> int:
        """Of all copies together."""
        return self.data * self.pipeline * self.tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What carries a plan out."""

    commands: tuple[tuple[str, ...], ...]
    """Each a program and its arguments, in order; the last one serves."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the engine's own settings file, or the call that takes its place, holds."""


class Launcher(Protocol):
    """Writes a plan for one engine. Immutable."""

    name: ClassVar[str]

    def launch(self, plan: Plan, workload: Workload, model: str) -> Launch:
        """The commands and settings that carry out `plan` for such a load.

        Raises Incompatible for a plan that the engine cannot follow, saying which part of it.
        """
        ...


def degrees_of(plan: Plan, engine: str) -> Degrees:
    """The degrees of an even plan.

    Raises Incompatible for one that is uneven, parts phases or attention, or is elastic.
    """
    if plan.handoffs or plan.elastic is not None or any(stage.attention for stage in plan.stages):
        raise _cannot(engine, "computes the phases of a request, or attention, apart")
    shapes = {_shape(replica, engine) for replica in plan.replicas}
    if len(shapes) > 1:
        raise _cannot(engine, f"has replicas of {len(shapes)} forms")
    pipeline, tensor = shapes.pop()
    return Degrees(data=len(plan.replicas), pipeline=pipeline, tensor=tensor)


def _shape(replica: Replica, engine: str) -> tuple[int, int]:
    """Stages, and devices of each."""
    sizes = {len(group) for group in replica.groups}
    if len(sizes) > 1:
        raise _cannot(engine, "has stages of unequal numbers of devices")
    tensor = sizes.pop()
    if any(abs(stage.share - 1 / tensor) > UNEVEN for stage in replica.stages):
        raise _cannot(engine, "gives devices unequal shares of a layer")
    layers = [group[0].end_layer - group[0].first_layer for group in replica.groups]
    if max(layers) - min(layers) > 1:
        raise _cannot(engine, f"has stages of {', '.join(map(str, layers))} layers")
    return len(layers), tensor


def _cannot(engine: str, why: str) -> Incompatible:
    return Incompatible(
        f"{engine} splits models evenly, and this plan {why}",
        hint="plan with --strategy uniform, tensor, grid or data-parallel, or serve it by Pentad",
        param="launch",
    )


def refuse(engine: str, what: str, degree: int) -> None:
    """Raises Incompatible where a degree is more than one that the engine does not know."""
    if degree > 1:
        raise Incompatible(
            f"{engine} knows no {what} parallelism, and this plan has a degree of {degree}",
            hint="choose another engine for --launch, or another --strategy",
            param="launch",
        )
