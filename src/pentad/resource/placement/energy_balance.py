"""Shares of the requests by which no battery runs down long before the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.ranges import in_range
from pentad.resource.cost import chunks
from pentad.resource.placement.base import (
    PlacementProblem,
    check_memory,
    replica_load,
    stage_cost,
    stage_on,
)
from pentad.resource.placement.finish import finish
from pentad.resource.placement.pipeline import ACTIVATION_BYTES
from pentad.resource.placement.plan import Plan, Replica, Stage
from pentad.resource.placement.predict import predict
from pentad.resource.placement.replicated import by_speed, layer_speed
from pentad.resource.step_shape import StepShape

_LEAST = 1e-3
"""Smaller shares are not worth a copy of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyBalance:
    """A copy on every device that holds the model, and one on the others together; shares by battery.

    The shares are those under which the first battery to run down lasts longest, while the mean latency is at
    most `latency_slack` above the least possible. Counted are compute, communication, idle power and what
    each battery has left (`battery_j` of the profile; without, a device is on the mains). A given life bounds
    each copy's share, so the longest is found by bisection, each time filling the fastest copies first. Where
    nothing has a battery, the shares go as far towards the least energy as the latency allows.
    Exactness: lossless. Cost: 80 passes over the devices.

    Source: the survey's section VII-C asks for it; this is the maximum lifetime of sensor
    networks (Chang and Tassiulas, 2004), with requests in the place of packets.
    """

    latency_slack: float = 0.1
    """By how much the mean latency may exceed the least, as a share of that."""
    load: float = 0.5
    """The requests that come, as a share of what all devices can answer together."""
    most_load: float = 0.8
    """Of what one device can answer, the most that it is given."""

    def __post_init__(self) -> None:
        in_range("latency_slack", self.latency_slack, least=0, most=100)
        in_range("load", self.load, above=0, most=1)
        in_range("most_load", self.most_load, least=self.load, most=1)

    @property
    def name(self) -> str:
        return "energy-balance"

    def plan(self, problem: PlacementProblem) -> Plan:
        able, refusal = _copies(problem)
        while able:
            shares = self._shares(problem, able)
            kept = [(copy, share) for copy, share in zip(able, shares, strict=True) if share > _LEAST]
            total = sum(share for _, share in kept)
            replicas = []
            for copy, share in kept:
                try:
                    replicas.append(_replica(problem, copy, share / total))
                except Infeasible as error:
                    refusal = refusal or error
                    able.remove(copy)
            if len(replicas) == len(kept):
                return finish(self.name, problem, *replicas)
        assert refusal is not None, "a cluster has devices"
        raise refusal

    def _shares(self, problem: PlacementProblem, able: Sequence[_Copy]) -> list[float]:
        """Of the requests, for each copy."""
        rate = self.load * sum(copy.requests_per_s for copy in able)
        most = [self.most_load * copy.requests_per_s / rate for copy in able]
        seconds = [copy.seconds for copy in able]
        fastest = _filled(most, seconds)
        assert fastest is not None, "most_load is at least load"
        allowed_s = _mean(fastest, seconds) * (1 + self.latency_slack) + 1e-12
        fleet = [device for device in problem.cluster.devices if device.battery_j is not None]
        if not fleet:
            thrifty = _filled(most, [copy.joules for copy in able])
            assert thrifty is not None
            return _between(fastest, thrifty, seconds, allowed_s)

        def lasting(life_s: float) -> list[float] | None:
            """Shares under which every battery lasts so long; None where the latency forbids it."""
            limits = [
                min(bound, *(_room(device, copy, rate, life_s) for device in fleet))
                for bound, copy in zip(most, able, strict=True)
            ]
            found = _filled(limits, seconds) if min(_idle_life_s(each) for each in fleet) >= life_s else None
            return found if found is not None and _mean(found, seconds) <= allowed_s else None

        low, high = 0.0, max(_idle_life_s(device) for device in fleet)
        best = fastest
        for _ in range(80):
            middle = math.sqrt(low * high) if low else high / 1e9
            found = lasting(middle)
            if found is None:
                high = middle
            else:
                low, best = middle, found
            if low and high / low < 1 + 1e-6:
                break
        return best


def _filled(most: Sequence[float], costs: Sequence[float]) -> list[float] | None:
    """Shares that add up to 1 within their bounds at the least mean cost; None where there are none."""
    shares = [0.0] * len(most)
    left = 1.0
    for i in sorted(range(len(most)), key=lambda i: costs[i]):
        shares[i] = min(left, max(0.0, most[i]))
        left -= shares[i]
    return None if left > 1e-9 else shares


def _mean(shares: Sequence[float], values: Sequence[float]) -> float:
    return sum(share * value for share, value in zip(shares, values, strict=True))


def _between(
    fastest: Sequence[float], thrifty: Sequence[float], seconds: Sequence[float], allowed_s: float
) -> list[float]:
    """The shares on the line between the two that are as thrifty as the latency allows."""
    soonest_s, latest_s = _mean(fastest, seconds), _mean(thrifty, seconds)
    part = 1.0 if latest_s <= allowed_s else (allowed_s - soonest_s) / (latest_s - soonest_s)
    return [part * b + (1 - part) * a for a, b in zip(fastest, thrifty, strict=True)]


def _idle_life_s(device: DeviceProfile) -> float:
    """How long its battery lasts where it only idles."""
    assert device.battery_j is not None
    return device.battery_j / max(device.idle_w or 0.0, 1e-9)


def _room(device: DeviceProfile, copy: _Copy, rate: float, life_s: float) -> float:
    """The largest share for the copy with which the device's battery lasts so long."""
    if device.name not in copy.devices:
        return math.inf
    allowed_w = (device.battery_j or 0.0) / life_s - (device.idle_w or 0.0)
    low, high = 0.0, float(copy.most)
    if copy.watts(device.name, high) <= allowed_w:
        return math.inf
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if copy.watts(device.name, middle) <= allowed_w else (low, middle)
    return copy.rate(low) / rate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """A copy of the model that some devices hold."""

    devices: tuple[str, ...]
    seconds: float
    """One request by itself, its way between the devices included."""
    full_s: float
    """One of `most` requests at once."""
    most: int
    requests_per_s: float
    """With so many at once."""
    active_w: dict[str, float]
    """What each device takes beyond idling while a request is in the copy, in the mean."""
    radio_j: dict[str, float]
    """What sending takes of each device, per request."""

    @property
    def joules(self) -> float:
        """Of all devices, for one request by itself."""
        return self.seconds * sum(self.active_w.values()) + sum(self.radio_j.values())

    def rate(self, present: float) -> float:
        """Requests per second with so many in the copy in the mean (Little's law)."""
        part = 0.0 if self.most < 2 else max(0.0, min(present, self.most) - 1) / (self.most - 1)
        return present / (self.seconds + part * (self.full_s - self.seconds))

    def watts(self, device: str, present: float) -> float:
        """What a device takes beyond idling with so many requests in the copy in the mean.

        It idles while none is there; of arrivals without memory that are computed together, that share of the
        time is exp(-present) (M/G/infinity). So a batch costs hardly more than one request.
        """
        active = 1 - math.exp(-present)
        return self.active_w[device] * active + self.rate(present) * self.radio_j[device]


def _copies(problem: PlacementProblem) -> tuple[list[_Copy], Infeasible | None]:
    """A copy on each device that holds the model, one on all others together; and why not, of one."""
    found: list[_Copy] = []
    small: list[str] = []
    refusal: Infeasible | None = None
    for device in problem.cluster.devices:
        try:
            found.append(_copy(problem, (device.name,)))
        except Infeasible as error:
            refusal = refusal or error
            small.append(device.name)
    if len(small) > 1:
        try:
            found.append(_copy(problem, tuple(small)))
        except Infeasible as error:
            refusal = refusal or error
    return found, refusal


def _copy(problem: PlacementProblem, names: tuple[str, ...]) -> _Copy:
    """What a copy on these devices takes. Raises Infeasible where they do not hold it, or lack a link."""
    one = replace(problem, workload=replace(problem.workload, concurrency=1))
    stages = check_memory(one, lambda changed: _layout(changed, names))
    load = problem.workload
    busy = [_busy_s(one, stage) for stage in stages]
    alone, full = (predict(each, Replica(stages=stages)) for each in (one, problem))
    active_w: dict[str, float] = {}
    radio_j: dict[str, float] = {}
    for stage, own_s, following in zip(stages, busy, [*stages[1:], None], strict=True):
        device = problem.cluster.device(stage.device)
        active_w[device.name] = max(0.0, (device.power_w or 0.0) - (device.idle_w or 0.0)) * own_s / sum(busy)
        radio_j[device.name] = 0.0
        if following is not None:
            link = problem.cluster.link(stage.device, following.device)
            assert link is not None, "the prediction needs it too"
            sent = (load.prompt_tokens + load.new_tokens) * problem.spec.width * ACTIVATION_BYTES
            radio_j[device.name] = sent / link.bytes_per_s * device.extra.get("radio_w", 0.0)
    return _Copy(
        devices=names,
        seconds=alone.completion_s,
        full_s=full.completion_s,
        most=load.concurrency,
        requests_per_s=full.throughput_tokens_per_s / load.new_tokens,
        active_w=active_w,
        radio_j=radio_j,
    )


def _busy_s(problem: PlacementProblem, stage: Stage) -> float:
    """Seconds that a stage computes for one request by itself."""
    load, cost = problem.workload, stage_cost(problem, stage)
    prompt = chunks(load.prompt_tokens, load.max_batch_tokens)
    first_s = sum(cost.seconds(StepShape.prefill(tokens, cached=cached)) for cached, tokens in prompt)
    context = load.prompt_tokens + load.new_tokens // 2
    return first_s + load.new_tokens * cost.seconds(StepShape.decode(1, context))


def _layout(problem: PlacementProblem, names: Sequence[str]) -> Sequence[Stage]:
    devices = [problem.cluster.device(name) for name in names]
    if len(devices) == 1:
        return (stage_on(problem, devices[0], 0, problem.spec.layers),)
    return by_speed(problem, devices, [layer_speed(problem, device) for device in devices])


def _replica(problem: PlacementProblem, copy: _Copy, share: float) -> Replica:
    load = replica_load(problem, share)
    return Replica(stages=check_memory(load, lambda changed: _layout(changed, copy.devices)), weight=share)
