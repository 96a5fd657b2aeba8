"""Variants: the kinds of replicas that a pool may have, and the cheapest mix of them that holds a load.

A variant is what answers alike: slots, speed, price and quality. An accelerator, a share of one and a CPU
are variants, as are two precisions of the model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pentad.resource.scaling.base import Host, Member, Place, Pool, Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Replicas of one kind: those that are up, and places for more."""

    capacity: float
    """Of one replica, in the unit of the need."""
    price_per_s: float
    """With the machine's, where that would have to be added."""
    start_s: float = 0.0
    members: tuple[str, ...] = ()
    """Up, the one that is stopped first in front."""
    places: tuple[str, ...] = ()
    """Free, the one that is taken first in front; draining members, which cost no start, before all."""
    new_host: bool = False
    key: tuple[object, ...] = ()
    """What its replicas have in common; the same at every look."""

    @property
    def most(self) -> int:
        """Replicas that there can be."""
        return len(self.members) + len(self.places)


def variants_of(
    pool: Pool, capacity: Callable[[Replica], float], hosts: Mapping[str, Host], up: set[str]
) -> tuple[Variant, ...]:
    """A pool's variants, the cheapest for what they answer first.

    Args:
        pool: of one model.
        capacity: what a replica answers.
        hosts: machines by name.
        up: those of them that run.
    """
    found: dict[tuple[object, ...], list[Replica]] = {}
    for each in pool.replicas:
        added = isinstance(each, Place) and each.host in hosts and each.host not in up
        key = (each.slots, each.speed, each.price_per_s, each.quality, each.host if added else "")
        found.setdefault(key, []).append(each)
    made = [_variant(key, each, capacity, hosts) for key, each in found.items()]
    return tuple(sorted(made, key=lambda kind: kind.price_per_s / max(kind.capacity, 1e-12)))


def _variant(
    key: tuple[object, ...],
    alike: list[Replica],
    capacity: Callable[[Replica], float],
    hosts: Mapping[str, Host],
) -> Variant:
    added = bool(key[-1])
    members = [each for each in alike if isinstance(each, Member) and each.state != "draining"]
    draining = [each for each in alike if isinstance(each, Member) and each.state == "draining"]
    places = sorted((each for each in alike if isinstance(each, Place)), key=lambda each: each.cold_start_s)
    first = alike[0]
    host = hosts[first.host] if added else None
    return Variant(
        capacity=capacity(first),
        price_per_s=first.price_per_s + (host.price_per_s if host else 0.0),
        start_s=(places[0].cold_start_s if places else 0.0) + (host.start_s if host else 0.0),
        members=tuple(each.name for each in sorted(members, key=lambda each: each.running + each.waiting)),
        places=(*(each.name for each in draining), *(each.name for each in places)),
        new_host=added,
        key=key,
    )


def mix_cost(variants: Sequence[Variant], counts: Sequence[int], load_weight: float) -> float:
    """Money per second of so many replicas of each, with the time that new ones load weighted in.

    Source: INFaaS (Romero et al., ATC'21, section 4): cost * (change + weight * load time * added), up to
    what the present replicas cost.
    """
    return sum(
        kind.price_per_s * (count + load_weight * kind.start_s * max(0, count - len(kind.members)))
        for kind, count in zip(variants, counts, strict=True)
    )


def cheapest_mix(variants: Sequence[Variant], need: float, load_weight: float) -> tuple[int, ...]:
    """How many replicas of each variant hold a need at the least `mix_cost`, greedily.

    Each ordered pair of variants is tried: so many of the first, the rest of the second, and what then still
    lacks of the others in the order of price for capacity. Where all together are too few, all are taken.
    Takes pairs times replicas, not the product over all variants that the exact program takes.
    """
    best = tuple(kind.most for kind in variants)
    if sum(count * kind.capacity for kind, count in zip(variants, best, strict=True)) < need:
        return best
    least = mix_cost(variants, best, load_weight)
    for counts in _tried(variants, need):
        cost = mix_cost(variants, counts, load_weight)
        if cost < least - 1e-12:
            best, least = counts, cost
    return best


def _tried(variants: Sequence[Variant], need: float) -> Iterator[tuple[int, ...]]:
    places = range(len(variants))
    for first, second in itertools.product(places, places):
        order = [second, *(i for i in places if i not in (first, second))]
        for count in range(min(variants[first].most, _enough(variants[first], need)) + 1):
            counts = [0] * len(variants)
            counts[first] = count
            short = need - count * variants[first].capacity
            for i in order:
                if short > 1e-9 and i != first:
                    counts[i] = min(variants[i].most, _enough(variants[i], short))
                    short -= counts[i] * variants[i].capacity
            if short <= 1e-9:
                yield tuple(counts)


def _enough(kind: Variant, need: float) -> int:
    return math.ceil(need / kind.capacity - 1e-9) if kind.capacity > 0 else kind.most
