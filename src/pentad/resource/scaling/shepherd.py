"""Groups of models on groups of devices, planned now and then, so that bursts find room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, ScalerInput, Scaling, ScalingPlan
from pentad.resource.scaling.colocation import Colocates, device_of, to_models
from pentad.resource.scaling.stream_groups import grouped, kept_devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Shepherd(Colocates):
    """Puts every model of a group on every device of the group; the group shares its devices as requests
    come.

    Groups are planned every `interval_s` from forecast rates: as few as memory allows, with devices by load.
    Nothing is scaled down between: what a stream does not use is there for another one's burst.

    Source: SHEPHERD (Zhang et al., NSDI'23, section 4, HERD). Our difference: engines of one device take
    turns step by step, in place of its online scheduler, which is in `simulator.streams`.
    """

    model_memory: float = 0.25
    """Share of a device's memory that one model takes, above 0 to 1."""
    calm_s: float = 120.0
    """How long a lower rate must have lasted before it counts."""
    interval_s: float = 10.0
    """Seconds between decisions."""

    name: ClassVar[str] = "shepherd"

    def __post_init__(self) -> None:
        Colocates.__post_init__(self)
        in_range("model_memory", self.model_memory, above=0, most=1)

    def start(self, seed: int = 0) -> Scaling:  # noqa: ARG002 - draws nothing
        return _Grouping(self)


class _Grouping:
    """What it has seen of each pool."""

    def __init__(self, scaler: Shepherd) -> None:
        self._scaler = scaler
        self._sessions = scaler.sessions(memory=scaler.model_memory)

    def decide(self, state: ScalerInput) -> ScalingPlan:
        sessions = {model: self._sessions.of(model, pool, state.now_s) for model, pool in state.pools.items()}
        now, devices = _devices(state.pools)
        try:
            groups = grouped(list(sessions.values()), len(devices))
        except Infeasible:
            # More models than memory: those with most work are served, the others as soon as there is room.
            room = int(1 / self._scaler.model_memory + 1e-9) * len(devices)
            first = sorted(sessions.values(), key=lambda each: -each.rate_per_s)[:room]
            groups = grouped(first, len(devices)) if first else ()
        wanted = kept_devices(groups, now, devices)
        return to_models(
            wanted, state, sessions, policy=self._scaler.name, least=self._scaler.least, constraint="devices"
        )


def _devices(pools: Mapping[str, Pool]) -> tuple[dict[str, set[str]], list[str]]:
    """Which models each device has now, and all devices."""
    now: dict[str, set[str]] = {}
    for model, pool in pools.items():
        for each in pool.replicas:
            now.setdefault(device_of(each), set())
        for member in pool.members:
            if member.state != "draining":
                now[device_of(member)].add(model)
    return now, list(now)
