"""Arrangements of devices into pipelines, and those that differ from one by a single change."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from pentad.resource.placement.workbench import Groups, Workbench


class Arrangement(NamedTuple):
    """Pipelines of groups of devices, and the devices that stand idle. Both in a fixed order."""

    pipelines: tuple[Groups, ...]
    idle: tuple[str, ...] = ()

    @classmethod
    def of(cls, pipelines: Iterator[Groups] | tuple[Groups, ...], idle: tuple[str, ...] = ()) -> Arrangement:
        """The arrangement of these, empty pipelines left out."""
        return cls(tuple(sorted(p for p in pipelines if p)), tuple(sorted(idle)))

    def changed(self, *gone: int, added: tuple[Groups, ...] = (), idle: tuple[str, ...]) -> Arrangement:
        """Some pipelines replaced by others."""
        kept = (p for i, p in enumerate(self.pipelines) if i not in gone)
        return Arrangement.of((*kept, *added), idle)


def neighbours(bench: Workbench, now: Arrangement) -> Iterator[Arrangement]:
    """Every arrangement that one change leads to. Some come more than once."""
    for place, pipeline in enumerate(now.pipelines):
        for at in range(len(pipeline)):
            yield from _without_group(bench, now, place, at)
        for cut in range(1, len(pipeline)):
            yield now.changed(place, added=(pipeline[:cut], pipeline[cut:]), idle=now.idle)
    for name in now.idle:
        idle = tuple(other for other in now.idle if other != name)
        yield now.changed(added=(((name,),),), idle=idle)
        yield from _with_group(bench, Arrangement(now.pipelines, idle), (name,))
    for one, other in itertools.permutations(range(len(now.pipelines)), 2):
        joined = now.pipelines[one] + now.pipelines[other]
        yield now.changed(one, other, added=(joined,), idle=now.idle)
    yield from _swaps(now)


def _without_group(bench: Workbench, now: Arrangement, place: int, at: int) -> Iterator[Arrangement]:
    """A group taken out: to stand idle, to be a pipeline, to go elsewhere, or to fall apart."""
    pipeline = now.pipelines[place]
    group, rest = pipeline[at], pipeline[:at] + pipeline[at + 1 :]
    yield now.changed(place, added=(rest,), idle=now.idle + group)
    if rest:
        yield now.changed(place, added=(rest, (group,)), idle=now.idle)
    yield from _with_group(bench, now.changed(place, added=(rest,), idle=now.idle), group)
    if len(group) > 1:
        parts = tuple((name,) for name in group)
        yield now.changed(place, added=(pipeline[:at] + parts + pipeline[at + 1 :],), idle=now.idle)
        for name in group:
            smaller = tuple(other for other in group if other != name)
            left = (*pipeline[:at], smaller, *pipeline[at + 1 :])
            yield now.changed(place, added=(left,), idle=(*now.idle, name))


def _with_group(bench: Workbench, now: Arrangement, group: tuple[str, ...]) -> Iterator[Arrangement]:
    """A group put in: between two groups of any pipeline, or into a group."""
    for place, pipeline in enumerate(now.pipelines):
        for at in range(len(pipeline) + 1):
            yield now.changed(place, added=((*pipeline[:at], group, *pipeline[at:]),), idle=now.idle)
        for at, other in enumerate(pipeline):
            if bench.groupable(other + group):
                wider = (*pipeline[:at], other + group, *pipeline[at + 1 :])
                yield now.changed(place, added=(wider,), idle=now.idle)


def _swaps(now: Arrangement) -> Iterator[Arrangement]:
    """Two devices that change places, of pipelines or idle."""
    used = [name for pipeline in now.pipelines for group in pipeline for name in group]
    for one, other in itertools.chain(itertools.combinations(used, 2), itertools.product(used, now.idle)):
        turned = {one: other, other: one}
        pipelines = tuple(
            tuple(tuple(turned.get(name, name) for name in group) for group in pipeline)
            for pipeline in now.pipelines
        )
        yield Arrangement.of(pipelines, tuple(turned.get(name, name) for name in now.idle))
