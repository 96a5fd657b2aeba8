"""Workbench: pipelines tried out under a problem, for planners that search.

A pipeline is a sequence of groups of devices. A group shares its layers evenly (tensor parallelism); how
many layers each group runs is chosen here, by predictions, for a number of requests in flight.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.resource.backends import share_layers
from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.pipeline import GroupCost, PipelineCost, pipeline_links, ring_links
from pentad.resource.placement.plan import Replica, Split, Stage
from pentad.resource.placement.predict import Prediction, predict_pipeline
from pentad.resource.step_shape import StepShape

Goal = Literal["throughput", "latency", "cost", "energy"]
"""What a plan is the best of: most tokens per second, soonest completion, least money or energy a request."""
Groups = tuple[tuple[str, ...], ...]
Counts = tuple[int, ...]
"""Layers of each group."""
_CLIMBED_DEVICES = 16
"""Devices of a cluster up to which the search can afford to climb for every pipeline."""
_SHORT = 3
"""Groups of a pipeline in which layers are moved between any two."""
_CLIMB_SHARES = (4, 8, 16)
"""A climb moves this part of the layers at a time, then single ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A pipeline with its layers and what it would do with so many requests in flight."""

    groups: Groups
    layers: Counts
    concurrency: int
    prediction: Prediction
    round_s: float
    """While all of its requests are served once."""
    price_per_s: float
    """Of its devices; 0 where none is known."""
    power_w: float
    excess: float
    """By how much of them its predicted latencies exceed what is allowed, together."""

    def value(self, goal: Goal) -> float:
        """What the search adds up, of latencies the largest counts; less is better."""
        if goal == "throughput":
            return -self.prediction.throughput_tokens_per_s
        if goal == "latency":
            return self.prediction.completion_s
        return self.round_s * (self.price_per_s if goal == "cost" else self.power_w)


class Workbench:
    """Tries pipelines of a problem's devices and remembers the outcomes.

    Args:
        problem: model, cluster, load and objective.
        goal: by which layers are shared out.
    """

    def __init__(self, problem: PlacementProblem, goal: Goal = "throughput") -> None:
        self.problem = problem
        self.goal: Goal = goal
        self.climbs = len(problem.cluster.devices) <= _CLIMBED_DEVICES
        """Whether the layers of each pipeline are moved for as long as that helps."""
        self._kinds = {d.name: problem.costs.kind(d) for d in problem.cluster.devices}
        self._tried: dict[Hashable, Trial | None] = {}
        self._splits: dict[Hashable, Counts | None] = {}
        self._loads: dict[int, PlacementProblem] = {}
        self._speeds: dict[int, float] = {}

    def device(self, name: str) -> DeviceProfile:
        return self.problem.cluster.device(name)

    def speed(self, name: str) -> float:
        """Layers per second while decoding one sequence."""
        kind = self._kinds[name]
        if kind not in self._speeds:
            load, spec = self.problem.workload, self.problem.spec
            cost = self.problem.costs.cost(self.device(name), spec, self.problem.form, 0, 1)
            shape = StepShape.decode(1, load.prompt_tokens + load.new_tokens // 2)
            self._speeds[kind] = 1 / max(cost.seconds(shape), 1e-12)
        return self._speeds[kind]

    def groupable(self, group: Sequence[str]) -> bool:
        """Whether these may share layers evenly."""
        links = self.problem.cluster.link
        ring = zip(group, (*group[1:], group[0]), strict=True)
        return len(group) == 1 or (
            self.problem.spec.kv_heads % len(group) == 0
            and all(links(a, b) is not None for a, b in ring)
            and share_layers([self.device(name) for name in group])
        )

    def near(self, group: Sequence[str]) -> bool:
        """Whether all its links are faster than those that the cluster has everywhere."""
        cluster = self.problem.cluster
        if cluster.default_link is None:
            return True
        rates = (cluster.link(a, b) for a, b in itertools.pairwise(group))
        return all(link is not None and link.bytes_per_s > cluster.default_link.bytes_per_s for link in rates)

    def load(self, concurrency: int) -> PlacementProblem:
        """The problem with so many requests in flight."""
        if concurrency not in self._loads:
            workload = replace(self.problem.workload, concurrency=concurrency)
            self._loads[concurrency] = replace(self.problem, workload=workload)
        return self._loads[concurrency]

    def best(self, groups: Groups, concurrency: int) -> Trial | None:
        """The pipeline with its layers shared out well; None where it cannot hold them."""
        # The same layers serve numbers of requests that are near each other.
        usual = 1 << (concurrency - 1).bit_length()
        for near in (usual, concurrency):
            layers = self._shared_out(groups, near)
            found = self.tried(groups, layers, concurrency) if layers else None
            if found is not None:
                return found
        return None

    def tried(self, groups: Groups, layers: Counts, concurrency: int) -> Trial | None:
        """What these layers on these groups would do; None where they do not fit or a link is missing."""
        key = (self._key(groups), layers, concurrency)
        if key not in self._tried:
            self._tried[key] = self._try(groups, layers, concurrency)
        found = self._tried[key]
        return None if found is None else replace(found, groups=groups)

    def stages(self, groups: Groups, layers: Counts, load: PlacementProblem) -> tuple[Stage, ...]:
        """The memory of a pipeline's stages. Checks nothing."""
        stages: list[Stage] = []
        first = 0
        for group, count in zip(groups, layers, strict=True):
            members = [(self.device(name), 1 / len(group)) for name in group]
            stages += group_on(load, members, first, first + count)
            first += count
        return tuple(stages)

    def replica(self, trial: Trial, total: int) -> Replica:
        """The part of a plan that serves its requests, of `total` in flight."""
        stages = self.stages(trial.groups, trial.layers, self.load(trial.concurrency))
        return Replica(stages=stages, weight=trial.concurrency / total)

    def _try(self, groups: Groups, layers: Counts, concurrency: int) -> Trial | None:
        load = self.load(concurrency)
        places = range(len(groups))
        if any(layers[i] > self._most_layers(load, groups, i) for i in places):
            return None
        try:
            pipeline = self._pipeline(groups, layers)
        except Infeasible:  # a link is missing
            return None
        found = predict_pipeline(load, pipeline, [group[0] for group in groups])
        devices = [self.device(name) for group in groups for name in group]
        return Trial(
            groups=groups,
            layers=layers,
            concurrency=concurrency,
            prediction=found,
            round_s=found.device_s * concurrency,
            price_per_s=sum(device.price_per_hour or 0.0 for device in devices) / 3600,
            power_w=sum(device.power_w or 0.0 for device in devices),
            excess=self._excess(found),
        )

    def _pipeline(self, groups: Groups, layers: Counts) -> PipelineCost:
        """The step times of a pipeline. Raises Infeasible where a link is missing."""
        stages: list[GroupCost] = []
        first = 0
        for group, count in zip(groups, layers, strict=True):
            stages.append(self._group(group, first, first + count))
            first += count
        leaders = [group[0] for group in groups]
        return PipelineCost(
            spec=self.problem.spec,
            form=self.problem.form,
            stages=tuple(stages),
            links=pipeline_links(self.problem.cluster, leaders),
        )

    def _group(self, group: tuple[str, ...], first: int, end: int) -> GroupCost:
        problem = self.problem
        spec, book = problem.spec, problem.costs
        ring = ring_links(problem.cluster, group)
        speeds = tuple((link.bytes_per_s, link.latency_s) for link in ring)
        kinds = tuple(self._kinds[name] for name in group)

        def made() -> GroupCost:
            costs = (book.cost(self.device(name), spec, problem.form, first, end) for name in group)
            shares = (1 / len(group),) * len(group)
            split: Split = "tensor" if len(group) > 1 else "none"
            return GroupCost(members=tuple(costs), shares=shares, split=split, ring=ring)

        key = ("group", kinds, speeds, problem.form, book.layers_key(spec, first, end))
        return book.keep(key, made)

    def _excess(self, found: Prediction) -> float:
        wishes = self.problem.objective
        pairs = (
            (found.ttft_s, wishes.ttft_s),
            (found.inter_token_s, wishes.inter_token_s),
            (found.completion_s, wishes.deadline_s),
        )
        return sum(max(0.0, told / asked - 1) for told, asked in pairs if asked)

    def _key(self, groups: Groups) -> Hashable:
        """The same for pipelines that differ in nothing but their devices' names."""
        link = self.problem.cluster.link
        kinds = tuple(tuple(self._kinds[name] for name in group) for group in groups)
        if len(groups) == 1 and len(groups[0]) == 1:
            return kinds
        pairs = [(a[0], b[0]) for a, b in itertools.pairwise(groups)]
        for group in groups:
            if len(group) > 1:
                pairs += zip(group, (*group[1:], group[0]), strict=True)
        found = (link(a, b) for a, b in pairs)
        return kinds, tuple(None if one is None else (one.bytes_per_s, one.latency_s) for one in found)

    def _shared_out(self, groups: Groups, concurrency: int) -> Counts | None:
        """Layers of each group: the best of several starts, each climbed from."""
        key = (self._key(groups), concurrency)
        if key not in self._splits:
            self._splits[key] = self._split(groups, concurrency)
        return self._splits[key]

    def _split(self, groups: Groups, concurrency: int) -> Counts | None:
        total = self.problem.spec.layers
        if len(groups) > total:
            return None
        if len(groups) == 1:
            return (total,)
        load = self.load(concurrency)
        caps = [self._most_layers(load, groups, i) for i in range(len(groups))]
        if min(caps) < 1 or sum(caps) < total:
            return None
        speeds = [len(group) * min(self.speed(name) for name in group) for group in groups]
        starts = {by_shares(speeds, caps, total), by_shares([s**4 for s in speeds], caps, total)}
        climb = self._climb if self.climbs else self.tried
        climbed = [climb(groups, start, concurrency) for start in sorted(starts)]
        found = [trial for trial in climbed if trial is not None]
        return min(found, key=self._order).layers if found else None

    def _order(self, trial: Trial) -> tuple[float, float]:
        return trial.excess, trial.value(self.goal)

    def _climb(self, groups: Groups, layers: Counts, concurrency: int) -> Trial | None:
        best = self.tried(groups, layers, concurrency)
        if best is None:
            return None
        total = sum(layers)
        for step in dict.fromkeys((*(total // share for share in _CLIMB_SHARES), 1)):
            better: Trial | None = best if step else None
            while better is not None:
                best, better = better, None
                for moved in self._moves(groups, best.layers, step):
                    trial = self.tried(groups, moved, concurrency)
                    if trial is not None and self._order(trial) < self._order(best):
                        better = trial
                        break
        return best

    def _moves(self, groups: Groups, layers: Counts, step: int) -> Iterator[Counts]:
        """Layers moved from one group to another; of a long pipeline from the slowest, or to the fastest."""
        places = range(len(groups))
        pairs = [(i, j) for i in places for j in places if i != j and layers[i] > step]
        if len(groups) > _SHORT:
            speeds = [len(group) * self.speed(group[0]) for group in groups]
            slowest = max(places, key=lambda i: layers[i] / speeds[i])
            fastest = min(places, key=lambda i: layers[i] / speeds[i])
            pairs = [(i, j) for i, j in pairs if i == slowest or j == fastest]
        for source, target in pairs:
            yield _moved(layers, step, source, target)

    def _most_layers(self, load: PlacementProblem, groups: Groups, place: int) -> int:
        """How many layers a group holds at this place of a pipeline."""
        last = place == len(groups) - 1
        where = (place == 0, last)
        kinds = tuple(self._kinds[name] for name in groups[place])
        key = ("most", kinds, where, len(groups), load.workload.concurrency)
        return self.problem.costs.keep(key, lambda: self._counted_most(load, groups, place))

    def _counted_most(self, load: PlacementProblem, groups: Groups, place: int) -> int:
        total, group = self.problem.spec.layers, groups[place]
        members = [(self.device(name), 1 / len(group)) for name in group]

        def fits(count: int) -> bool:
            # A stage between the first and the last one has neither embedding nor head.
            first = 0 if place == 0 else total - count if place == len(groups) - 1 else 1
            stages = group_on(load, members, first, first + count)
            return all(stage.total_bytes <= stage.usable_bytes for stage in stages)

        low, high = 0, total - len(groups) + 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low


def by_shares(shares: Sequence[float], caps: Sequence[int], total: int) -> Counts:
    """Whole numbers of at least one, at most their caps, in proportion to shares, that add up to total.

    The caps must leave room for it.
    """
    counts = [1] * len(shares)
    while (rest := total - sum(counts)) > 0:
        open_ = [i for i, count in enumerate(counts) if count < caps[i]]
        whole = sum(shares[i] for i in open_)
        before = sum(counts)
        for i in open_:
            counts[i] += min(int(rest * shares[i] / whole), caps[i] - counts[i])
        if sum(counts) == before:
            largest = max(open_, key=lambda i: shares[i] / counts[i])
            counts[largest] += 1
    return tuple(counts)


def _moved(layers: Counts, step: int, source: int, target: int) -> Counts:
    changed = list(layers)
    changed[source] -= step
    changed[target] += step
    return tuple(changed)
