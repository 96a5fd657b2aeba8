"""One group of all devices whose shares follow their speeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.resource.placement.base import PlacementProblem, check_memory
from pentad.resource.placement.finish import finish
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.plan import Plan, Replica, Stage
from pentad.resource.placement.predict import predict
from pentad.resource.placement.replicated import layer_speed
from pentad.resource.placement.workbench import by_shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Galaxy:
    """Every layer on all devices at once, with more heads and columns on those that are faster.

    Shares are whole key/value heads: first in proportion to speed, then what a device cannot hold goes to the
    others by speed, then heads move between devices while the predicted completion gains. Norms and
    residuals are split over the tokens, which suits home networks. Cost: a prediction per move that is tried.

    Source: Galaxy (Ye et al., INFOCOM'24), workload planning in two steps; the last climb is ours, and
    transfers are not overlapped with tiles of products.
    """

    split: Literal["sequence", "tensor"] = "sequence"
    """`tensor` holds norms and residuals whole on each device, as Megatron-LM."""

    @property
    def name(self) -> str:
        return "galaxy"

    def plan(self, problem: PlacementProblem) -> Plan:
        devices, heads = problem.cluster.devices, problem.spec.kv_heads
        if len(devices) > heads:
            raise Infeasible(
                f"{len(devices)} devices are more than the {heads} key/value heads of model "
                f"{problem.spec.name!r}",
                hint=f"use at most {heads} devices",
                param="devices",
            )
        counts = _held(self, problem, devices, [layer_speed(problem, device) for device in devices])
        if counts is None:
            # Raises: names the device that is too small for an equal share.
            check_memory(problem, lambda changed: _stages(self, changed, _equal(heads, len(devices))))
            raise Infeasible(
                f"no shares of model {problem.spec.name!r} fit all {len(devices)} devices",
                hint="set --weight-bits 4, or leave the smallest device out",
                param="memory",
            )
        counts = _climbed(self, problem, counts)
        return finish(self.name, problem, Replica(stages=_stages(self, problem, counts)))


def _equal(heads: int, parts: int) -> tuple[int, ...]:
    return tuple(heads // parts + (i < heads % parts) for i in range(parts))


def _stages(galaxy: Galaxy, problem: PlacementProblem, counts: Sequence[int]) -> tuple[Stage, ...]:
    heads = problem.spec.kv_heads
    members = [(d, n / heads) for d, n in zip(problem.cluster.devices, counts, strict=True)]
    return group_on(problem, members, 0, problem.spec.layers, split=galaxy.split)


def _held(
    galaxy: Galaxy,
    problem: PlacementProblem,
    devices: Sequence[DeviceProfile],
    speeds: Sequence[float],
) -> tuple[int, ...] | None:
    """Heads by speed, as far as each device's memory goes; None where not all find a place."""
    heads = problem.spec.kv_heads
    caps = []
    for place in range(len(devices)):
        most = 0
        for count in range(1, heads - len(devices) + 2):
            others = _equal(heads - count, len(devices) - 1) if len(devices) > 1 else ()
            stages = _stages(galaxy, problem, (*others[:place], count, *others[place:]))
            if stages[place].total_bytes > stages[place].usable_bytes:
                break
            most = count
        caps.append(most)
    if min(caps) < 1 or sum(caps) < heads:
        return None
    return by_shares(speeds, caps, heads)


def _climbed(galaxy: Galaxy, problem: PlacementProblem, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Heads moved from one device to another while that shortens the completion."""

    def took(tried: Sequence[int]) -> float:
        stages = _stages(galaxy, problem, tried)
        if any(stage.total_bytes > stage.usable_bytes for stage in stages):
            return float("inf")
        return predict(problem, Replica(stages=stages)).completion_s

    best, better = took(counts), True
    while better:
        better = False
        for source in range(len(counts)):
            for target in range(len(counts)):
                if source == target or counts[source] < 2:
                    continue
                moved = list(counts)
                moved[source] -= 1
                moved[target] += 1
                if (value := took(moved)) < best:
                    counts, best, better = tuple(moved), value, True
    return counts
