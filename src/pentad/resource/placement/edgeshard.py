"""Contiguous layers on chosen devices, in the best order, by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile, Link
from pentad.ranges import in_range
from pentad.registry import near
from pentad.resource.cost import chunks
from pentad.resource.placement.auto import refusal_of
from pentad.resource.placement.base import PlacementProblem, stage_on
from pentad.resource.placement.finish import finish
from pentad.resource.placement.pipeline import ACTIVATION_BYTES
from pentad.resource.placement.plan import Plan, Replica, Stage
from pentad.resource.placement.predict import predict
from pentad.resource.step_shape import StepShape

_State = tuple[int, int, int]
"""Layers placed, devices used as bits, the last device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeShard:
    """Chooses devices, their order and their layers, for the soonest answer or the fastest pipeline.

    A state is the number of layers placed, the set of devices used and the last one of them; a step places
    further layers on another device. Memory and the links' rates are kept. `latency` adds up the time of
    stages and links, `throughput` counts the slowest of them. Exact for what it counts. Cost: devices squared
    times layers squared times the sets of devices, so at most `devices` are taken.

    Source: EdgeShard (Zhang et al., 2024, algorithms 1 and 2), with this package's step times in place of
    profiled ones; keys and values count as memory.
    """

    goal: Literal["latency", "throughput"] = "latency"
    """`latency` of one request through all stages, or `throughput` of a full pipeline."""
    source: str | None = None
    """The device that holds the first layer, so that texts do not leave it; None: any."""
    devices: int = 12
    """The fastest of them are considered, so many at most."""

    def __post_init__(self) -> None:
        in_range("devices", self.devices, least=1, most=16)

    @property
    def name(self) -> str:
        return "edgeshard"

    def plan(self, problem: PlacementProblem) -> Plan:
        # A full pipeline works on several parts of the sequences at once, as many as it turns out best.
        parts = range(1, min(problem.workload.concurrency, self.devices) + 1)
        found = []
        for count in [0, *parts] if self.goal == "throughput" else [0]:
            table = _Table(problem=problem, parts=count, most=self.devices, source=self.source)
            stages = table.best()
            if stages is None:
                raise refusal_of(problem)
            found.append(Replica(stages=stages))
        best = max(found, key=lambda replica: predict(problem, replica).throughput_tokens_per_s)
        return finish(self.name, problem, best)


@dataclass(slots=True, kw_only=True)
class _Table:
    """The dynamic programme of one problem."""

    problem: PlacementProblem
    parts: int
    """Into which the sequences of a full pipeline fall; 0: one request passes all stages."""
    most: int
    source: str | None
    devices: list[DeviceProfile] = field(init=False)
    _shapes: list[tuple[StepShape, float]] = field(init=False)
    """Steps of a request, with how often they are taken."""

    def __post_init__(self) -> None:
        cluster, load = self.problem.cluster, self.problem.workload
        names = [device.name for device in cluster.devices]
        if self.source is not None and self.source not in names:
            raise Infeasible(
                f"the cluster has no device {self.source!r}", hint=near(self.source, names), param="source"
            )
        requests = load.concurrency if self.parts else 1
        self._shapes = [
            (StepShape.prefill(tokens, cached=cached), float(requests))
            for cached, tokens in chunks(load.prompt_tokens, load.max_batch_tokens)
        ]
        context = load.prompt_tokens + load.new_tokens // 2
        each = -(-requests // max(1, self.parts))
        steps = float(load.new_tokens * max(1, self.parts))
        self._shapes.append((StepShape.decode(each, context), steps))
        ordered = sorted(cluster.devices, key=lambda d: (d.name != self.source, self._stage_s(d, 0, 1)))
        self.devices = ordered[: self.most]

    def best(self) -> tuple[Stage, ...] | None:
        """The stages with the least time; None where nothing fits."""
        layers = self.problem.spec.layers
        times: dict[_State, float] = {}
        before: dict[_State, tuple[_State | None, int]] = {}
        firsts = [0] if self.source is not None else range(len(self.devices))
        for place in firsts:
            for end in range(1, layers + 1):
                if self._fits(place, 0, end):
                    state = (end, 1 << place, place)
                    times[state] = self._stage_s(self.devices[place], 0, end)
                    before[state] = (None, 0)
        for first in range(1, layers):
            for state in [state for state in times if state[0] == first]:
                self._extend(state, times, before)
        ends = [state for state in times if state[0] == layers]
        if not ends:
            return None
        at: _State | None = min(ends, key=lambda state: (times[state], state))
        stages: list[Stage] = []
        while at is not None:
            (end, _, place), (earlier, first) = at, before[at]
            stages.append(stage_on(self.problem, self.devices[place], first, end))
            at = earlier
        return tuple(reversed(stages))

    def _extend(
        self, state: _State, times: dict[_State, float], before: dict[_State, tuple[_State | None, int]]
    ) -> None:
        first, used, last = state
        for place, device in enumerate(self.devices):
            if used >> place & 1:
                continue
            link = self.problem.cluster.link(self.devices[last].name, device.name)
            if link is None:
                continue
            sent_s = self._sent_s(link)
            for end in range(first + 1, self.problem.spec.layers + 1):
                if not self._fits(place, first, end):
                    break
                own = self._stage_s(device, first, end)
                took = times[state] + sent_s + own if not self.parts else max(times[state], sent_s, own)
                reached = (end, used | 1 << place, place)
                if took < times.get(reached, float("inf")):
                    times[reached] = took
                    before[reached] = (state, first)

    def _fits(self, place: int, first: int, end: int) -> bool:
        stage = stage_on(self.problem, self.devices[place], first, end)
        return stage.total_bytes <= stage.usable_bytes

    def _stage_s(self, device: DeviceProfile, first: int, end: int) -> float:
        cost = self.problem.costs.cost(device, self.problem.spec, self.problem.form, first, end)
        return sum(times * cost.seconds(shape) for shape, times in self._shapes)

    def _sent_s(self, link: Link) -> float:
        width = self.problem.spec.width * ACTIVATION_BYTES
        return sum(
            times * (link.latency_s + shape.tokens * width / link.bytes_per_s)
            for shape, times in self._shapes
        )
