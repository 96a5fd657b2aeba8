"""Pools for prompts and for answers: how many devices of which kind each gets, and who hands to whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pentad.errors import Infeasible
from pentad.resource.placement.base import PlacementProblem, replica_load
from pentad.resource.placement.chain import lined_up
from pentad.resource.placement.phase_rates import Kind, Shape, kinds_of, stages_on
from pentad.resource.placement.plan import Handoff, Replica, Role
from pentad.resource.placement.predict import handoff_s
from pentad.resource.placement.workbench import Groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Shapes of each kind for each phase."""

    rate_per_s: float
    """Requests that the slower pool serves."""
    prefill: tuple[tuple[Kind, tuple[Shape, ...]], ...]
    decode: tuple[tuple[Kind, tuple[Shape, ...]], ...]

    @property
    def price(self) -> float:
        """Of all devices that are used."""
        return sum(
            shape.devices * kind.price for kind, found in (*self.prefill, *self.decode) for shape in found
        )


def kinds_for_phases(problem: PlacementProblem, *, most: int | None = None) -> list[Kind]:
    """The devices by kind with their rates in both phases.

    Args:
        most: devices of a replica; None for all of a kind.

    Raises Infeasible for a single device, which cannot be two pools.
    """
    names = [device.name for device in problem.cluster.devices]
    if len(names) < 2:
        raise Infeasible(
            "one device for prompts and one for answers are more than the cluster's 1",
            hint="add a device, or choose a --strategy whose replicas compute both phases",
            param="devices",
        )
    kinds = kinds_of(problem, ("prefill", "decode"), lined_up(problem.cluster, names))
    return kinds if most is None else [kind.narrowed(most) for kind in kinds]


def largest_pools(kinds: Sequence[Kind]) -> Pools | None:
    """The division of all devices with the most requests per second; None where a phase is served by none.

    The optimum over divisions gives prompts to those kinds first that are best at them against answers, so
    only divisions of that order are tried: one for each number of devices of the kind at its border.
    """

    def advantage(kind: Kind) -> float:
        prompts, answers = (
            max((rate / shape.devices for shape, rate in kind.rates[role].items()), default=0.0)
            for role in ("prefill", "decode")
        )
        return prompts / answers if answers else float("inf") if prompts else 0.0

    ordered = sorted(kinds, key=advantage, reverse=True)
    best: Pools | None = None
    for border, kind in enumerate(ordered):
        for count in range(len(kind.names) + 1):
            prompts = [(k, k.best("prefill", len(k.names))) for k in ordered[:border]]
            answers = [(k, k.best("decode", len(k.names))) for k in ordered[border + 1 :]]
            prompts.append((kind, kind.best("prefill", count)))
            answers.append((kind, kind.best("decode", len(kind.names) - count)))
            rate = min(sum(found[0] for _, found in part) for part in (prompts, answers))
            if rate > 0 and (best is None or rate > best.rate_per_s * (1 + 1e-9)):
                best = Pools(
                    rate_per_s=rate,
                    prefill=tuple((k, found[1]) for k, found in prompts),
                    decode=tuple((k, found[1]) for k, found in answers),
                )
    return best


def cheapest_pools(kinds: Sequence[Kind]) -> Pools | None:
    """The division with the most requests per second for its price; the other devices stand idle.

    Of each pair of kinds, as many as balance the pools; ties go to more requests. Exact for pools of one kind
    each, which are the best at any size but for rounding.
    """
    best: tuple[float, float, Pools] | None = None
    for pools in _pairs(kinds):
        worth = pools.rate_per_s / pools.price
        if best is None or (worth, pools.rate_per_s) > (best[0] * (1 + 1e-9), best[1]):
            best = worth, pools.rate_per_s, pools
    return None if best is None else best[2]


def _pairs(kinds: Sequence[Kind]) -> Iterator[Pools]:
    for one in kinds:
        for other in kinds:
            for prompts in range(1, len(one.names) + 1):
                left = len(one.names) - prompts if one is other else len(other.names)
                found = one.best("prefill", prompts)
                for answers in range(1, left + 1):
                    rest = other.best("decode", answers)
                    rate = min(found[0], rest[0])
                    if rate > 0:
                        yield Pools(rate_per_s=rate, prefill=((one, found[1]),), decode=((other, rest[1]),))


def replicas_of_pools(
    problem: PlacementProblem, pools: Pools, *, by_layer: bool = False
) -> tuple[list[Replica], list[Handoff]]:
    """The pools on devices, and who hands to whom over the fastest links that are free.

    Prompts and answers alternate along the line of devices, so that both are within a node where nodes have
    several devices. Raises Infeasible where links are missing, or memory for the problem's requests at once.
    """
    units: list[tuple[Role, Groups, float]] = []
    for kind in {id(kind): kind for kind, _ in (*pools.prefill, *pools.decode)}.values():
        parts: list[tuple[Role, Shape]] = []
        for role, pool in (("prefill", pools.prefill), ("decode", pools.decode)):
            parts += [(role, shape) for other, found in pool if other is kind for shape in found]  # type: ignore[misc]
        names = list(kind.names)
        for role, shape in _alternating(parts):
            own, names = names[: shape.devices], names[shape.devices :]
            units.append((role, shape.groups(own), kind.rates[role][shape]))
    replicas: list[Replica] = []
    for wanted in ("prefill", "decode"):
        chosen = [(groups, rate) for role, groups, rate in units if role == wanted]
        whole = sum(rate for _, rate in chosen)
        for groups, rate in chosen:
            load = replica_load(problem, rate / whole, wanted)
            stages = stages_on(load, groups)
            replicas.append(Replica(stages=stages, weight=rate / whole, role=wanted))
    return replicas, _handoffs(problem, replicas, by_layer)


def _alternating(parts: Sequence[tuple[Role, Shape]]) -> list[tuple[Role, Shape]]:
    """Prompts and answers mixed evenly, large shapes first within each."""
    found: list[tuple[float, int, tuple[Role, Shape]]] = []
    for place, role in enumerate(("prefill", "decode")):
        own = sorted((part for part in parts if part[0] == role), key=lambda part: -part[1].devices)
        found += [((i + 0.5) / len(own), place, part) for i, part in enumerate(own)]
    return [part for _, _, part in sorted(found, key=lambda entry: entry[:2])]


def _handoffs(problem: PlacementProblem, replicas: Sequence[Replica], by_layer: bool) -> list[Handoff]:
    """Shares of the requests by pair of replicas: the quickest links first, as far as both have room."""
    sources = {i: r.weight for i, r in enumerate(replicas) if r.role == "prefill"}
    targets = {i: r.weight for i, r in enumerate(replicas) if r.role == "decode"}
    pairs = sorted((handoff_s(problem, replicas[i], replicas[j]), i, j) for i in sources for j in targets)
    found = []
    for _, source, target in pairs:
        weight = min(sources[source], targets[target])
        if weight > 1e-12:
            found.append(Handoff(source=source, target=target, weight=weight, by_layer=by_layer))
            sources[source] -= weight
            targets[target] -= weight
    return found
