"""A line of devices in which fast links join neighbours, and its best cut into pipelines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from pentad.execution.device import Cluster
from pentad.resource.placement.neighbours import Arrangement
from pentad.resource.placement.workbench import Groups, Workbench

_LONGEST = 4
"""Devices of a pipeline that are tried, where fewer hold the model."""
_WIDTHS = (2, 4, 8)
"""Devices of a group that are tried."""


def lined_up(cluster: Cluster, devices: Sequence[str]) -> list[str]:
    """The devices in such an order that each is joined to the next by the fastest link that is left.

    Args:
        devices: decides between equal links, and where no link is given but the cluster's default.
    """
    place = {name: i for i, name in enumerate(devices)}
    default = cluster.default_link.bytes_per_s if cluster.default_link else 0.0
    near: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    for link in cluster.links:
        if link.bytes_per_s > default and link.source in place and link.target in place:
            near[link.source].append((-link.bytes_per_s, place[link.target], link.target))
    for found in near.values():
        found.sort()
    line: list[str] = []
    left = dict.fromkeys(devices)
    while left:
        linked = (name for _, _, name in near[line[-1]] if name in left) if line else iter(())
        chosen = next(linked, None) or next(iter(left))
        del left[chosen]
        line.append(chosen)
    return line


def cut(bench: Workbench, line: Sequence[str]) -> Arrangement:
    """The line cut into pipelines that generate most together, by dynamic programming.

    Each is tried with the share of the requests that its devices' speeds are of all speeds. Devices that
    only stand in the way of a better cut are left idle.
    """
    requests = bench.problem.workload.concurrency
    whole = sum(bench.speed(name) for name in line)
    longest = min(
        len(line), max(2 * _LONGEST, 2 * _needed(bench, line)), bench.problem.spec.layers * max(_WIDTHS)
    )
    best: list[tuple[float, int, Groups]] = [(0.0, 0, ())]
    for end in range(1, len(line) + 1):
        found: tuple[float, int, Groups] = (best[end - 1][0], end - 1, ())
        feasible = 0
        for first in range(end - 1, max(0, end - longest) - 1, -1):
            part = line[first:end]
            if feasible and len(part) > max(_LONGEST, feasible + feasible // 4):
                break
            share = sum(bench.speed(name) for name in part) / whole
            concurrency = max(1, round(requests * share))
            for groups in _grouped(bench, part):
                trial = bench.best(groups, concurrency)
                if trial is None:
                    continue
                feasible = feasible or len(part)
                gained = trial.prediction.throughput_tokens_per_s / (1 + 100 * trial.excess)
                if best[first][0] + gained > found[0]:
                    found = best[first][0] + gained, first, groups
        best.append(found)
    pipelines: list[Groups] = []
    at = len(line)
    while at:
        _, first, groups = best[at]
        if groups:
            pipelines.append(groups)
        at = first
    used = {name for groups in pipelines for group in groups for name in group}
    return Arrangement.of(tuple(pipelines), tuple(name for name in line if name not in used))


def _needed(bench: Workbench, line: Sequence[str]) -> int:
    """How many middling devices the weights take."""
    sizes = sorted(
        bench.stages(((name,),), (bench.problem.spec.layers,), bench.load(1))[0].usable_bytes for name in line
    )
    weights = bench.problem.form.weight_bytes(bench.problem.spec.parameters)
    return int(weights // max(1, sizes[len(sizes) // 2])) + 1


def _grouped(bench: Workbench, part: Sequence[str]) -> Iterator[Groups]:
    """The devices as a pipeline of single ones, and of equal groups of neighbours."""
    if len(part) <= bench.problem.spec.layers:
        yield tuple((name,) for name in part)
    for width in _WIDTHS:
        if len(part) % width == 0:
            groups = tuple(tuple(part[i : i + width]) for i in range(0, len(part), width))
            if all(bench.groupable(group) and bench.near(group) for group in groups):
                yield groups
