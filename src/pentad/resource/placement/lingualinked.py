"""Layers shared out over a ring of phones by a program over what each of them measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.ranges import in_range
from pentad.resource.placement.auto import refusal_of
from pentad.resource.placement.base import PlacementProblem, stage_on
from pentad.resource.placement.chain import lined_up
from pentad.resource.placement.finish import finish
from pentad.resource.placement.highs import open_highs
from pentad.resource.placement.pipeline import ACTIVATION_BYTES
from pentad.resource.placement.plan import Plan, Replica
from pentad.resource.step_shape import StepShape


@dataclass(frozen=True, slots=True, kw_only=True)
class LinguaLinked:
    """Chooses the layers of each device in a ring so that the slowest of them is as fast as can be.

    A device's time is that of its layers and of sending on; the last one sends to the first. Devices stand in
    a line of fast links and may be left out. Needs the extra `milp`. At run time the same program is solved
    again with the speeds that are seen (`simulator.chains`).

    Source: LinguaLinked (Zhao et al., 2023, sections 3.2 to 3.4), whose graph is cut between layers here;
    solved with HiGHS in place of Gurobi.
    """

    seconds: float = 10.0
    """After which the solver stops with the best layers so far."""

    def __post_init__(self) -> None:
        in_range("seconds", self.seconds, above=0)

    @property
    def name(self) -> str:
        return "lingualinked"

    def plan(self, problem: PlacementProblem) -> Plan:
        line = lined_up(problem.cluster, [device.name for device in problem.cluster.devices])
        counts = ring_layers(RingMetrics.of(problem, line), seconds=self.seconds)
        if counts is None:
            raise refusal_of(problem)
        stages, first = [], 0
        for name, count in zip(line, counts, strict=True):
            if count:
                stages.append(stage_on(problem, problem.cluster.device(name), first, first + count))
                first += count
        return finish(self.name, problem, Replica(stages=tuple(stages)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RingMetrics:
    """What the devices of a ring tell about themselves, in its order."""

    layer_s: tuple[float, ...]
    """Seconds of one layer and token."""
    send_s: tuple[float, ...]
    """Seconds until a token's values are at the next device."""
    most_layers: tuple[int, ...]
    """For which there is memory."""
    layers: int
    """Of the model."""

    @classmethod
    def of(cls, problem: PlacementProblem, line: Sequence[str]) -> RingMetrics:
        """As the profiles predict it. Raises Infeasible where no link leads on."""
        load, spec = problem.workload, problem.spec
        shape = StepShape.decode(1, load.prompt_tokens + load.new_tokens // 2)
        speeds, sends, most = [], [], []
        for place, name in enumerate(line):
            device = problem.cluster.device(name)
            cost = problem.costs.cost(device, spec, problem.form, 0, 1)
            speeds.append(cost.seconds(shape))
            sends.append(_send_s(problem, name, line[(place + 1) % len(line)]))
            most.append(_most_layers(problem, name))
        return cls(layer_s=tuple(speeds), send_s=tuple(sends), most_layers=tuple(most), layers=spec.layers)

    def slowed(self, factors: Mapping[int, float]) -> RingMetrics:
        """The same where devices, by their place, take so many times as long."""
        speeds = tuple(each * factors.get(place, 1.0) for place, each in enumerate(self.layer_s))
        return replace(self, layer_s=speeds)


def ring_layers(metrics: RingMetrics, *, seconds: float = 10.0) -> tuple[int, ...] | None:
    """Layers of each device, in order, with the least time of the slowest; None where memory is short."""
    if sum(metrics.most_layers) < metrics.layers:
        return None
    model = open_highs("lingualinked", gap=0.0, seconds=seconds)
    slowest = model.addVariable(lb=0)
    counts = []
    for layer_s, send_s, most in zip(metrics.layer_s, metrics.send_s, metrics.most_layers, strict=True):
        count = model.addIntegral(lb=0, ub=most)
        used = model.addBinary()
        model.addConstr(count - most * used <= 0)
        # In milliseconds: the solver's tolerances are absolute.
        model.addConstr(1000 * layer_s * count + 1000 * send_s * used - slowest <= 0)
        counts.append(count)
    model.addConstr(model.qsum(counts) == metrics.layers)
    model.minimize(slowest)
    values = list(model.getSolution().col_value)
    if not values:
        return None
    return tuple(round(values[count.index]) for count in counts)


def _send_s(problem: PlacementProblem, source: str, target: str) -> float:
    if source == target:
        return 0.0
    link = problem.cluster.link(source, target)
    if link is None:
        raise Infeasible(
            f"the ring needs a link from device {source!r} to {target!r}",
            hint="add the link to the cluster, with its bytes_per_s and latency_s",
            param="links",
        )
    return link.latency_s + problem.spec.width * ACTIVATION_BYTES / link.bytes_per_s


def _most_layers(problem: PlacementProblem, name: str) -> int:
    """Layers that fit with whatever of embedding and head makes them larger."""
    device, layers = problem.cluster.device(name), problem.spec.layers
    found = 0
    for count in range(1, layers + 1):
        ends = {(0, count), (layers - count, layers)}
        stages = [stage_on(problem, device, *each) for each in ends]
        if any(stage.total_bytes > stage.usable_bytes for stage in stages):
            break
        found = count
    return found
