"""What leads from the replicas that are up to another mix of variants."""

from __future__ import annotations

from collections.abc import Sequence

from pentad.resource.scaling.base import Pool, ScalingPlan, told
from pentad.resource.scaling.variants import Variant


def mix_plan(
    pool: Pool,
    kinds: Sequence[Variant],
    counts: Sequence[int],
    need: float,
    *,
    policy: str,
    model: str,
    now_s: float,
    constraint: str | None,
) -> ScalingPlan:
    """What leads from the present mix to another one; what is replaced stays until the rest suffices."""
    ready = {member.name for member in pool.members if member.state == "ready"}
    start: list[str] = []
    leaving: list[tuple[str, float]] = []
    able = 0.0
    for kind, count in zip(kinds, counts, strict=True):
        start += kind.places[: max(0, count - len(kind.members))]
        drop = kind.members[: max(0, len(kind.members) - count)]
        leaving += [(name, kind.capacity) for name in drop]
        able += kind.capacity * sum(name in ready for name in kind.members)
    stop = []
    for name, each in sorted(leaving, key=lambda pair: pair[0] in ready):
        lost = each if name in ready else 0.0
        if able - lost >= need or not lost:
            stop.append(name)
            able -= lost
    short = sum(count * kind.capacity for kind, count in zip(kinds, counts, strict=True)) < need
    kind_of_change = "upgrade" if start and leaving else None
    return told(
        pool,
        tuple(start),
        tuple(stop),
        policy=policy,
        model=model,
        now_s=now_s,
        wanted=sum(counts),
        constraint="places" if short else constraint or kind_of_change,
        scores=(
            ("need", need),
            ("price per s", sum(k.price_per_s * c for k, c in zip(kinds, counts, strict=True))),
        ),
    )
