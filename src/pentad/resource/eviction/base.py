"""Eviction: what a policy sees of a loaded model, and the choice of those that leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A model that is loaded."""

    name: str
    size_bytes: int
    """Memory that is free once it has left."""
    idle_s: float
    """Seconds since its latest request ended; 0 while it has one."""
    load_s: float
    """Seconds that loading it again is expected to take."""
    uses: int = 0
    """Requests since it was loaded."""


class EvictionPolicy(Protocol):
    """Says what it is worth to keep each loaded model; the least worth leaves first.

    Equal models get equal values, whatever the order in which they are shown.
    """

    @property
    def name(self) -> str: ...

    def keep_value(self, model: Resident) -> float:
        """How much it is worth to keep the model, in any unit that is the same for all."""
        ...

    def cost(self, models: int) -> float:
        """Seconds that one choice among so many models takes, of the right order, on one core."""
        ...


def choose_victims(
    policy: EvictionPolicy, residents: Sequence[Resident], needed_bytes: int, *, wanted: str, now_s: float
) -> tuple[tuple[str, ...], Decision]:
    """Who leaves so that `needed_bytes` become free, the least worth first, and the record of the choice.

    Nobody leaves in vain: there are no victims where all together do not suffice, and a victim whom the
    larger ones after it make needless stays.

    Args:
        residents: those that may leave.
        wanted: the model that needs the memory.
    """
    values = {one.name: policy.keep_value(one) for one in residents}
    chosen: list[Resident] = []
    if sum(one.size_bytes for one in residents) >= needed_bytes:
        freed = 0
        for one in sorted(residents, key=lambda one: (values[one.name], one.name)):
            if freed >= needed_bytes:
                break
            chosen.append(one)
            freed += one.size_bytes
        for one in reversed(chosen[:-1]):
            if freed - one.size_bytes >= needed_bytes:
                chosen.remove(one)
                freed -= one.size_bytes
    names = tuple(one.name for one in chosen)
    decision = Decision(
        layer="resource",
        policy=policy.name,
        subject=f"room for {wanted}",
        chosen=", ".join(names) or "none",
        candidates=tuple(sorted(values.items())),
        constraint=None if names else "memory",
        at_s=now_s,
    )
    return names, decision
