"""Which prompts start on which instances: fixed groups, or as many instances as lower the delays most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pentad.resource.placement.sequence_parallel import SequenceCost
from pentad.resource.step_shape import StepShape

if TYPE_CHECKING:
    from pentad.resource.simulator.elastic import ElasticSequence

_Table = dict[tuple[int, int], tuple[float, float, tuple[int, int] | None]]

KEPT = 4096
"""Times of batches that are remembered."""
LOOKED_AT = 6
"""Prompts that are considered at once, in the order of arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """What is known of the instances when prompts may start."""

    idle: tuple[int, ...]
    """Those that compute no prompts; who is at a token there ends it first."""
    room: tuple[float, ...]
    """Free KV slots of each."""
    answering: tuple[int, ...]
    """Sequences under way on each, which wait while it computes prompts."""
    waits: tuple[float, ...]
    """Of each, the sum of one over the tokens of its sequences' answers."""
    free_s: float = float("inf")
    """Until the first of the others is done with its prompts."""
    arrivals: float = 0.0
    """Requests per second of late, each as one over the tokens of its prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A batch of prompts that starts."""

    instances: tuple[int, ...]
    sequences: tuple[ElasticSequence, ...]
    keep: tuple[int, ...]
    """Of the instances, those on which keys and values stay; filled in this order."""


class Launches(Protocol):
    """Decides which prompts start."""

    @property
    def most_instances(self) -> int:
        """On which one sequence may lie."""
        ...

    @property
    def spreads(self) -> bool:
        """Whether keys and values lie evenly on all instances that keep them."""
        ...

    def choose(self, waiting: Sequence[ElasticSequence], seen: Instances) -> list[Launch]: ...


@dataclass(slots=True, kw_only=True)
class FixedLaunches:
    """Static sequence parallelism: each group of instances computes the prompts given to it, then answers.

    A request goes to the group with the most room at its turn; prompts that are there together start
    together, up to the tokens of a step, or one that is longer by itself.
    """

    groups: tuple[tuple[int, ...], ...]
    batch_tokens: int
    spreads: bool = True

    @property
    def most_instances(self) -> int:
        return len(self.groups[0])

    def choose(self, waiting: Sequence[ElasticSequence], seen: Instances) -> list[Launch]:
        left = list(waiting)
        idle = [group for group in self.groups if set(group) <= set(seen.idle)]
        found = []
        for group in sorted(idle, key=lambda g: -seen.room[g[0]]):
            room, tokens = sum(seen.room[i] for i in group), 0
            taken: list[ElasticSequence] = []
            for seq in tuple(left):
                if seq.most_slots > room:
                    continue
                if taken and tokens + seq.slots > self.batch_tokens:
                    break
                left.remove(seq)
                taken.append(seq)
                room -= seq.most_slots
                tokens += seq.slots
            if taken:
                found.append(Launch(instances=group, sequences=tuple(taken), keep=group))
        return found


@dataclass(slots=True, kw_only=True)
class ElasticLaunches:
    """Batches and degrees with the least delay per token, by dynamic programming over prompts and instances.

    Idle instances stand in the order of the answers that would wait for them, prompts in the order of their
    length. A batch delays each of its prompts, and each of the answers on its instances, by its time; so do
    prompts that do not start until an instance is free, and those that are to be expected and find none idle.
    Each delay counts by the tokens of its prompt, or of its answer. A prompt that has no room yet lets others
    pass.

    Source: LoongServe (Wu et al., SOSP'24, sections 5.1 to 5.3: dispatching, allocation and batching by
    normalised latencies); ours: one sum for all of them, with the prompts to be expected.
    """

    cost: SequenceCost
    count: int
    spreads: bool = False
    _known: dict[tuple[tuple[int, ...], int], float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def most_instances(self) -> int:
        return self.count

    def choose(self, waiting: Sequence[ElasticSequence], seen: Instances) -> list[Launch]:
        order = sorted(seen.idle, key=lambda i: (seen.answering[i], -seen.room[i]))
        first: list[ElasticSequence] = []
        room = sum(max(0.0, seen.room[i]) for i in order)
        for seq in waiting:
            if seq.most_slots <= room and len(first) < LOOKED_AT:
                first.append(seq)
                room -= seq.most_slots
        first.sort(key=lambda seq: seq.slots)
        table = self._table(first, order, seen)
        return min((self._ending(table, key, first, order, seen) for key in table), key=lambda end: end[0])[1]

    def _table(self, prompts: Sequence[ElasticSequence], order: Sequence[int], seen: Instances) -> _Table:
        """Per prompts that start and instances that are taken: the least delay, and the batch at the end."""
        table: _Table = {(0, 0): (0.0, 0.0, None)}
        for end in range(1, len(prompts) + 1):
            for start in range(end):
                batch = prompts[start:end]
                need = sum(seq.most_slots for seq in batch)
                weight = sum(1 / seq.slots for seq in batch)
                for low in range(len(order)):
                    if (start, low) not in table:
                        continue
                    room, waits = 0.0, weight
                    for high in range(low + 1, len(order) + 1):
                        room += seen.room[order[high - 1]]
                        waits += seen.waits[order[high - 1]]
                        if room < need:
                            continue
                        took_s = self._seconds(batch, high - low)
                        delay = table[start, low][0] + waits * took_s
                        if (end, high) not in table or delay < table[end, high][0]:
                            table[end, high] = delay, took_s, (start, low)
        return table

    def _ending(
        self,
        table: _Table,
        at: tuple[int, int],
        prompts: Sequence[ElasticSequence],
        order: Sequence[int],
        seen: Instances,
    ) -> tuple[float, list[Launch]]:
        """The delay in all where these prompts start on these instances, and the batches."""
        delay, idle = table[at][0], len(order) - at[1]
        left, found, free_s = at, [], seen.free_s
        while (before := table[left][2]) is not None:
            batch, own = prompts[before[0] : left[0]], order[before[1] : left[1]]
            found.append(Launch(instances=tuple(own), sequences=tuple(batch), keep=_keep(batch, own, seen)))
            free_s = min(free_s, table[left][1])
            left = before
        later = sum(1 / seq.slots for seq in prompts[at[0] :])
        if later and idle and free_s == float("inf"):
            return float("inf"), found  # they would wait for nothing
        delay += later * free_s if later else 0.0
        if not idle and free_s < float("inf"):
            delay += seen.arrivals * free_s**2 / 2
        return delay, found

    def _seconds(self, batch: Sequence[ElasticSequence], degree: int) -> float:
        lengths = tuple(seq.slots for seq in batch)
        if (lengths, degree) not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            shape = StepShape.from_sequences([(tokens, tokens) for tokens in lengths], rows=len(lengths))
            self._known[lengths, degree] = self.cost.prompt_s(shape, degree)
        return self._known[lengths, degree]


def _keep(batch: Sequence[ElasticSequence], own: Sequence[int], seen: Instances) -> tuple[int, ...]:
    """As few of the instances as have room, first those that answer already, so that others become free."""
    need, kept, room = sum(seq.most_slots for seq in batch), [], 0.0
    alone = [i for i in own if seen.room[i] >= need]
    if alone:
        return (max(alone, key=lambda i: (seen.answering[i], -i)),)
    for i in sorted(own, key=lambda i: -seen.room[i]):
        kept.append(i)
        room += seen.room[i]
        if room >= need:
            break
    return tuple(kept)
