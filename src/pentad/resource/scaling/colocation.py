"""Models that share devices: their sessions as the load shows them, and the plan that puts each where it
belongs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.scaling.base import Pool, Replica, ScalerInput, ScalingPlan, joined, told
from pentad.resource.scaling.demand import Calm, Demand, LooksAhead
from pentad.resource.scaling.sessions import Session
from pentad.resource.scaling.speed import mean_lengths, needed_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Colocates(LooksAhead):
    """Base of scalers that put several models on one device: the options by which sessions are made."""

    deadline_s: float = 10.0
    """Of requests that bring none."""
    drain_s: float = 10.0
    """In how long requests that wait should be answered."""
    calm_s: float = 30.0
    """How long a lower rate must have lasted before it counts."""

    colocates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        LooksAhead.__post_init__(self)
        in_range("deadline_s", self.deadline_s, above=0)
        in_range("drain_s", self.drain_s, above=0)
        in_range("calm_s", self.calm_s, least=0)

    def cost(self, members: int) -> float:
        return 2e-4 + 1e-5 * members

    def sessions(self, *, target: float = 1.0, memory: float = 0.0) -> Sessions:
        """What makes sessions by these options."""
        return Sessions(
            self,
            target=target,
            deadline_s=self.deadline_s,
            drain_s=self.drain_s,
            calm_s=self.calm_s,
            memory=memory,
        )


class Sessions:
    """Makes a session of each pool: its forecast rate, its deadline, and what its batches take.

    Args:
        ahead: how demand is counted.
        target: share of the devices' capacity that the load should be.
        deadline_s: of requests that bring none.
        drain_s: in how long requests that wait should be answered.
        calm_s: how long a lower rate must have lasted before it counts.
        memory: share of a device's memory that each model takes.
    """

    def __init__(
        self,
        ahead: LooksAhead,
        *,
        deadline_s: float,
        drain_s: float,
        calm_s: float,
        target: float = 1.0,
        memory: float = 0.0,
    ) -> None:
        self._ahead = ahead
        self._target = target
        self._deadline_s = deadline_s
        self._drain_s = drain_s
        self._calm_s = calm_s
        self._memory = memory
        self._demand: dict[str, Demand] = {}
        self._calm: dict[str, Calm[float]] = {}

    def of(self, model: str, pool: Pool, now_s: float) -> Session:
        """The session of a pool now; in order of time."""
        if model not in self._demand:
            self._demand[model], self._calm[model] = self._ahead.demand(), Calm(self._calm_s)
        demand = self._demand[model]
        demand.look(pool, now_s)
        rate = needed_per_s(pool, demand, self._drain_s)
        if pool.in_flight or demand.came:
            rate = max(rate, 1 / self._drain_s)
        rate = self._calm[model].highest(now_s, rate / self._target)
        deadline_s = self._deadline_s if pool.deadline_s is None else pool.deadline_s
        lengths = mean_lengths(pool)
        speed = next((each.speed for each in pool.replicas if each.speed is not None), None)
        slots = max((each.slots for each in pool.replicas), default=1)
        if speed is not None and lengths is not None:
            fixed_s, item_s = speed.fixed_s(slots, lengths[1]), speed.item_s(slots, *lengths)
        else:
            fixed_s, item_s = demand.service_s or deadline_s / 4, 0.0
        return Session(
            model=model,
            rate_per_s=rate,
            # A model that cannot keep its deadline anywhere is served as well as it can be.
            deadline_s=max(deadline_s, 2 * (fixed_s + item_s) * 1.001),
            fixed_s=fixed_s,
            item_s=item_s,
            most=slots,
            memory=self._memory,
        )


def device_of(replica: Replica) -> str:
    """What a replica stands on, by name; its own name where nobody says."""
    return "+".join(replica.devices) or replica.name


def to_models(
    wanted: Mapping[str, set[str]],
    state: ScalerInput,
    sessions: Mapping[str, Session],
    *,
    policy: str,
    least: int,
    constraint: str,
) -> ScalingPlan:
    """The plan after which each device has the models that are wanted there, and each model its fewest
    replicas."""
    plans = []
    for model, pool in state.pools.items():
        chosen = {device for device, models in wanted.items() if model in models}
        up = {device_of(m): m.name for m in pool.members if m.state != "draining"}
        spare = {device_of(each): each.name for each in pool.replicas if device_of(each) not in up}
        start = [name for device, name in spare.items() if device in chosen]
        stop = [name for device, name in up.items() if device not in chosen]
        lacking = max(0, least - (len(up) + len(start) - len(stop)))
        kept = stop[:lacking]
        stop = stop[lacking:]
        start += [name for name in spare.values() if name not in start][: lacking - len(kept)]
        session = sessions[model]
        plans.append(
            told(
                pool,
                tuple(start),
                tuple(stop),
                policy=policy,
                model=model,
                now_s=state.now_s,
                wanted=len(chosen),
                constraint=constraint,
                scores=(("requests per s", session.rate_per_s), ("deadline s", session.deadline_s)),
            )
        )
    return joined(plans)
