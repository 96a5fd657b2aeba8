"""Several models on a device, in duty cycles whose batches meet each model's deadline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import Member, Pool, ScalerInput, Scaling, ScalingPlan
from pentad.resource.scaling.colocation import Colocates, device_of, to_models
from pentad.resource.scaling.sessions import DutyCycle, pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Nexus(Colocates):
    """Packs models onto as few devices as hold their load within their deadlines, several on one if they fit.

    Each model is a session with its forecast rate and its deadline; `sessions.pack` makes the duty cycles of
    devices, and each cycle goes to the device that already has most of its models. Engines of one device take
    turns, so the requests that gather meanwhile are the batch.

    Source: Nexus (Shen et al., SOSP'19, section 6.1; epoch scheduling 6.3). Our difference: the batch of a
    cycle is not enforced, since engines batch what is there.
    """

    target: float = 0.8
    """Share of the devices' capacity that the load should be, above 0 to 1."""
    interval_s: float = 5.0
    """Seconds between decisions: an epoch."""

    name: ClassVar[str] = "nexus"

    def __post_init__(self) -> None:
        Colocates.__post_init__(self)
        in_range("target", self.target, above=0, most=1)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Packing(self)


class _Packing:
    """What it has seen of each pool."""

    def __init__(self, scaler: Nexus) -> None:
        self._scaler = scaler
        self._sessions = scaler.sessions(target=scaler.target)

    def decide(self, state: ScalerInput) -> ScalingPlan:
        sessions = {model: self._sessions.of(model, pool, state.now_s) for model, pool in state.pools.items()}
        wanted = on_devices(pack(sessions.values()), state.pools)
        return to_models(
            wanted, state, sessions, policy=self._scaler.name, least=self._scaler.least, constraint="deadline"
        )


def on_devices(cycles: tuple[DutyCycle, ...], pools: Mapping[str, Pool]) -> dict[str, set[str]]:
    """Which models each device has: a cycle goes where most of its models are already.

    Cycles without a device of their own share one with the emptiest.
    """
    now: dict[str, set[str]] = {}
    able: dict[str, set[str]] = {}
    for model, pool in pools.items():
        for each in pool.replicas:
            able.setdefault(device_of(each), set()).add(model)
            if isinstance(each, Member) and each.state != "draining":
                now.setdefault(device_of(each), set()).add(model)
    given: dict[str, set[str]] = {}
    occupied: dict[str, float] = {}
    for cycle in sorted(cycles, key=lambda each: -each.occupancy):
        models = {load.session.model for load in cycle.loads}
        places = [device for device in able if models & able[device]]
        if not places:
            continue
        free = [device for device in places if device not in given] or places
        best = min(
            free,
            key=lambda device: (
                occupied.get(device, 0.0),
                len(models - able[device]),
                -len(models & now.get(device, set())),
                len(now.get(device, set()) - models),
            ),
        )
        given.setdefault(best, set()).update(models & able[best])
        occupied[best] = occupied.get(best, 0.0) + cycle.occupancy
    return given
