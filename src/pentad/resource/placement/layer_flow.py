"""The flow of requests through devices that hold parts of a model, as a mixed-integer program.

    source --> device [layers 0 to 11] --link--> device [8 to 23, of which it runs 12 to 23] --> sink

A device with so many layers passes so many requests per second, a link as many as it can carry the values of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.errors import Infeasible
from pentad.resource.cost import chunks
from pentad.resource.placement.base import PlacementProblem, stage_on
from pentad.resource.placement.highs import open_highs
from pentad.resource.placement.pipeline import ACTIVATION_BYTES
from pentad.resource.step_shape import StepShape

SOURCE, SINK = "", "\x00"
_LEAST = 1e-7
"""Of the largest flow: less on an edge is rounding of the solver."""
Edge = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFlow:
    """A placement of layers and the requests per second on each edge."""

    layers: Mapping[str, tuple[int, int]]
    """First and end layer of each device that holds some."""
    edges: Mapping[Edge, float]
    bound_per_s: float
    """What no placement exceeds, as far as the solver came."""

    @property
    def per_s(self) -> float:
        """Requests that flow from the source."""
        return sum(flow for (start, _), flow in self.edges.items() if start == SOURCE)

    def paths(self) -> list[tuple[tuple[tuple[str, int, int], ...], float]]:
        """The flow as paths, widest first: devices with the layers that they run on it, and its flow."""
        left = dict(self.edges)
        least = self.per_s * _LEAST
        found: dict[tuple[tuple[str, int, int], ...], float] = {}
        while True:
            path = self._widest(left, least)
            if path is None:
                return sorted(found.items(), key=lambda entry: -entry[1])
            edges = list(zip((SOURCE, *path), (*path, SINK), strict=True))
            width = min(left[edge] for edge in edges)
            for edge in edges:
                left[edge] -= width
            ends = [self.layers[name][1] for name in path]
            stages = tuple(zip(path, (0, *ends), ends, strict=False))
            found[stages] = found.get(stages, 0.0) + width

    def _widest(self, left: Mapping[Edge, float], least: float) -> tuple[str, ...] | None:
        """The path whose narrowest edge is widest; None where nothing flows any more."""
        ordered = sorted(self.layers, key=lambda name: self.layers[name][1])
        best: dict[str, tuple[float, tuple[str, ...]]] = {}
        for name in ordered:  # ends of layers rise along every edge
            options: list[tuple[float, tuple[str, ...]]] = [(left.get((SOURCE, name), 0.0), (name,))]
            options += [
                (min(width, left.get((before, name), 0.0)), (*path, name))
                for before, (width, path) in best.items()
            ]
            best[name] = max(options, key=lambda option: option[0])
        ends = [(min(width, left.get((name, SINK), 0.0)), path) for name, (width, path) in best.items()]
        width, path = max(ends, key=lambda option: option[0], default=(0.0, ()))
        return path if width > least else None


def device_rates(problem: PlacementProblem, name: str) -> list[float]:
    """Requests per second that a device passes with one layer, two and so on, as far as its memory goes.

    As many sequences as fit are decoded together, the problem's concurrency at most. Counted with whatever of
    embedding and head makes it larger, so that the layers may stand anywhere.
    """
    device, spec, load = problem.cluster.device(name), problem.spec, problem.workload
    context = load.prompt_tokens + load.new_tokens // 2
    book, found = problem.costs, []
    for count in range(1, spec.layers + 1):
        ends = {(0, count), (spec.layers - count, spec.layers)}
        sizes = [stage_on(problem, device, *layers) for layers in ends]
        if any(stage.total_bytes > stage.usable_bytes for stage in sizes):
            break
        cost = book.cost(device, spec, problem.form, spec.layers - count, spec.layers)
        prompt_s = sum(
            cost.seconds(StepShape.prefill(tokens, cached=cached))
            for cached, tokens in chunks(load.prompt_tokens, load.max_batch_tokens)
        )
        decode_s = cost.seconds(StepShape.decode(load.concurrency, context)) / load.concurrency
        found.append(1 / (prompt_s + load.new_tokens * decode_s))
    return found


def solve(problem: PlacementProblem, *, degree: int, gap: float, seconds: float) -> LayerFlow:
    """The placement with the largest flow.

    Args:
        degree: links of a device that are looked at, the fastest ones.
        gap: the solver may stop this close to its bound, as a share.
        seconds: after which it stops with the best placement so far.

    Raises:
        MissingExtra: HiGHS is not installed.
        Infeasible: no placement, or none found in time.
    """
    model = open_highs("helix", gap=gap, seconds=seconds)
    return _Program(problem, model, degree).solved()


class _Program:
    """The variables and constraints of Helix's program over HiGHS's model."""

    def __init__(self, problem: PlacementProblem, model: Any, degree: int) -> None:
        self.problem, self.model = problem, model
        self.rates = {device.name: device_rates(problem, device.name) for device in problem.cluster.devices}
        self.names = [name for name, rates in self.rates.items() if rates]
        self.holds: dict[str, list[Any]] = {}
        self.first: dict[str, Any] = {}
        self.end: dict[str, Any] = {}
        self.flow: dict[Edge, Any] = {}
        for name in self.names:
            self._device(name)
        for edge, most in self._links(degree):
            self._edge(edge, most)
        for name in self.names:
            self._balance(name)

    def _device(self, name: str) -> None:
        """How many layers it holds, from which on."""
        layers = self.problem.spec.layers
        self.holds[name] = [self.model.addBinary() for _ in self.rates[name]]
        self.first[name] = self.model.addIntegral(lb=0, ub=layers)
        self.model.addConstr(self.model.qsum(self.holds[name]) <= 1)
        count = self.model.qsum([(i + 1) * held for i, held in enumerate(self.holds[name])])
        self.end[name] = self.first[name] + count
        self.model.addConstr(self.end[name] <= layers)

    def _links(self, degree: int) -> Sequence[tuple[Edge, float]]:
        """The edges between devices, with the requests per second that the link carries."""
        load, cluster = self.problem.workload, self.problem.cluster
        each = self.problem.spec.width * ACTIVATION_BYTES * (load.prompt_tokens + load.new_tokens)
        found: list[tuple[Edge, float]] = []
        for source in self.names:
            rates = [
                (link.bytes_per_s / each, target)
                for target in self.names
                if target != source and (link := cluster.link(source, target)) is not None
            ]
            rates.sort(key=lambda entry: -entry[0])
            found += [((source, target), rate) for rate, target in rates[:degree]]
        return found

    def _edge(self, edge: Edge, most: float) -> None:
        """A link that is used only where the next device has the layer that comes next, and one behind it."""
        source, target = edge
        layers = self.problem.spec.layers
        used, flow = self.model.addBinary(), self.model.addVariable(lb=0)
        most = min(most, max(self.rates[source]), max(self.rates[target]))
        self.model.addConstr(flow - most * used <= 0)
        self.model.addConstr(self.first[target] - self.end[source] + layers * used <= layers)
        self.model.addConstr(self.end[source] - self.end[target] + (layers + 1) * used <= layers)
        self.flow[edge] = flow

    def _balance(self, name: str) -> None:
        """What comes in goes out, and no more than the device computes; source and sink at both ends."""
        model, layers, most = self.model, self.problem.spec.layers, max(self.rates[name])
        begins, ends = model.addBinary(), model.addBinary()
        entering, leaving = model.addVariable(lb=0), model.addVariable(lb=0)
        model.addConstr(entering - most * begins <= 0)
        model.addConstr(self.first[name] + layers * begins <= layers)
        model.addConstr(leaving - most * ends <= 0)
        model.addConstr(layers - self.end[name] + layers * ends <= layers)
        self.flow[SOURCE, name], self.flow[name, SINK] = entering, leaving
        inward = model.qsum([flow for (_, target), flow in self.flow.items() if target == name])
        outward = model.qsum([flow for (source, _), flow in self.flow.items() if source == name])
        able = model.qsum(
            [rate * held for rate, held in zip(self.rates[name], self.holds[name], strict=True)]
        )
        model.addConstr(inward - outward == 0)
        model.addConstr(inward - able <= 0)

    def solved(self) -> LayerFlow:
        model = self.model
        entering = [flow for (source, _), flow in self.flow.items() if source == SOURCE]
        if entering:
            model.maximize(model.qsum(entering))
        values = list(model.getSolution().col_value) if entering else []
        flows = {edge: values[flow.index] for edge, flow in self.flow.items()} if values else {}
        total = sum(flow for (source, _), flow in flows.items() if source == SOURCE)
        if total <= 0:
            raise Infeasible(
                f"no flow of requests through the cluster's {len(self.problem.cluster.devices)} devices was "
                f"found that serves {self.problem.workload.concurrency} requests of model "
                f"{self.problem.spec.name!r} at once",
                hint="add devices or links, set --weight-bits 4, lower --concurrency, or raise `seconds`",
                param="memory",
            )
        held = {
            name: sum((i + 1) * round(values[each.index]) for i, each in enumerate(self.holds[name]))
            for name in self.names
        }
        layers = {
            name: (first := round(values[self.first[name].index]), first + count)
            for name, count in held.items()
            if count
        }
        kept = {edge: flow for edge, flow in flows.items() if flow > total * _LEAST}
        return LayerFlow(layers=layers, edges=kept, bound_per_s=float(model.getInfo().mip_dual_bound))
