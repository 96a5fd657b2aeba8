"""From replicas to a plan: the objective's limits, what binds, and remedies that were tried."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.execution.device import SOURCES, DeviceProfile
from pentad.resource.backends import backend_for
from pentad.resource.operators import LEFT_OUT
from pentad.resource.placement.base import PlacementProblem, replica_load
from pentad.resource.placement.groups import check_shared_memory, check_shares, group_on
from pentad.resource.placement.plan import Handoff, Plan, Replica, handoffs_of
from pentad.resource.placement.predict import Prediction, predict_all
from pentad.types import Decision

Predictor = Callable[
    [PlacementProblem, Sequence[Replica], Sequence[Handoff]], tuple[list[Prediction], Prediction]
]
"""Each replica by itself and all together, each with its share of the requests."""

_NEEDED = {"max_cost": "price_per_hour", "max_energy_j": "power_w"}


def finish(
    strategy: str,
    problem: PlacementProblem,
    *replicas: Replica,
    handoffs: Sequence[Handoff] = (),
    predictor: Predictor = predict_all,
) -> Plan:
    """The plan of replicas whose stages fit by themselves, once all its parts and limits were checked.

    Args:
        handoffs: from prefill to decode replicas; none: each prefill replica's to all decode replicas alike.
        predictor: of what each replica and all together do, also under the changes that a remedy tries.

    Raises:
        Infeasible: a link is missing, a shared device is too small, a share is no whole number of heads, or
            a limit of the objective cannot be met, or not be checked; the hint of the last was tried.
        ValueError: the replicas are no plan: layers, shares or weights do not add up.
    """
    flow = handoffs_of(replicas, handoffs)
    check_shares(problem, replicas)
    check_shared_memory(replicas)
    judged = _judge(problem, replicas, flow, predictor)
    _refuse_excess(problem, replicas, judged)
    prediction = judged.prediction
    stages = [stage for replica in replicas for stage in replica.stages]
    parts = [part for stage in stages for part in stage.attention]
    used = [stage.device for stage in stages] + [part.device for part in parts]
    profiles = [problem.cluster.device(name) for name in used]
    pressures = {f"memory of {stage.device!r}": stage.total_bytes / stage.usable_bytes for stage in stages}
    pressures |= {f"memory of {part.device!r}": part.kv_bytes / part.usable_bytes for part in parts}
    pressures |= {limit.name: limit.predicted / limit.allowed for limit in judged.limits if limit.allowed}
    nearest = max(pressures, key=pressures.__getitem__)
    return Plan(
        strategy=strategy,
        model=problem.spec.name,
        replicas=replicas,
        handoffs=flow,
        ttft_s=prediction.ttft_s,
        inter_token_s=prediction.inter_token_s,
        throughput_tokens_per_s=prediction.throughput_tokens_per_s,
        binding=nearest
        if len(pressures) > len(stages) + len(parts) or pressures[nearest] > 0.8
        else prediction.binding_term,
        cost_per_request=judged.cost,
        energy_j_per_request=judged.energy_j,
        source=max((profile.weakest_source for profile in profiles), key=SOURCES.index),
        decisions=(
            Decision(
                layer="resource",
                policy=strategy,
                subject="placement",
                chosen="; ".join(_written(replica, len(replicas)) for replica in replicas),
                candidates=tuple((name, round(value, 4)) for name, value in pressures.items()),
                constraint=nearest,
            ),
            *_left_out(strategy, problem),
            *(
                backend_for(profile)
                for profile in {one.name: one for one in profiles}.values()
                if profile.apis
            ),
        ),
    )


def _left_out(strategy: str, problem: PlacementProblem) -> Iterator[Decision]:
    """One decision for each device that cannot run the model."""
    for name, reason in problem.left_out:
        yield Decision(
            layer="resource", policy=strategy, subject=LEFT_OUT, chosen=f"without {name!r}", constraint=reason
        )


def _written(replica: Replica, count: int) -> str:
    groups = ", ".join(
        f"{'|'.join(s.device for s in group)}:{group[0].first_layer}-{group[0].end_layer}"
        for group in replica.groups
    )
    phase = "" if replica.role == "both" else f"{replica.role} on "
    return groups if count == 1 else f"{phase}{groups} for {replica.weight:.0%}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """A wish of the objective and what is predicted for it."""

    name: str
    predicted: float
    allowed: float

    @property
    def exceeded(self) -> bool:
        return self.predicted > self.allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    prediction: Prediction
    cost: float | None
    energy_j: float | None
    limits: tuple[_Limit, ...]
    flow: tuple[Handoff, ...]
    predictor: Predictor


def _judge(
    problem: PlacementProblem, replicas: Sequence[Replica], flow: Sequence[Handoff], predictor: Predictor
) -> _Judged:
    """The prediction beside every limit that was asked for. Raises Infeasible where one can't be checked."""
    wishes = problem.objective
    found, prediction = predictor(problem, replicas, flow)
    cost = _per_request(problem, replicas, found, lambda device: device.price_per_hour, 1 / 3600)
    energy_j = _per_request(problem, replicas, found, lambda device: device.power_w, 1.0)
    asked = (
        ("ttft_s", prediction.ttft_s, wishes.ttft_s),
        ("inter_token_s", prediction.inter_token_s, wishes.inter_token_s),
        ("deadline_s", prediction.completion_s, wishes.deadline_s),
        ("max_cost", cost, wishes.max_cost),
        ("max_energy_j", energy_j, wishes.max_energy_j),
    )
    limits = []
    for name, predicted, allowed in asked:
        if allowed is None:
            continue
        if predicted is None:
            raise Infeasible(
                f"{name} of {allowed:.3g} cannot be checked: not every device of {_names(replicas)} has "
                f"{_NEEDED[name]} in its profile",
                hint=f"add {_NEEDED[name]} to the profile or drop {name}",
                param=name,
            )
        limits.append(_Limit(name=name, predicted=predicted, allowed=allowed))
    return _Judged(
        prediction=prediction,
        cost=cost,
        energy_j=energy_j,
        limits=tuple(limits),
        flow=tuple(flow),
        predictor=predictor,
    )


def _refuse_excess(problem: PlacementProblem, replicas: Sequence[Replica], judged: _Judged) -> None:
    exceeded = [limit for limit in judged.limits if limit.exceeded]
    if exceeded:
        first = exceeded[0]
        raise Infeasible(
            f"model {problem.spec.name!r} on {_names(replicas)} has a predicted {first.name} of "
            f"{first.predicted:.3g}, asked is at most {first.allowed:.3g}",
            hint=_remedy(problem, replicas, judged),
            param=first.name,
        )


def _remedy(problem: PlacementProblem, replicas: Sequence[Replica], judged: _Judged) -> str:
    """The mildest change under which the same stages keep every limit; each was tried."""
    exceeded = [limit for limit in judged.limits if limit.exceeded]
    for words, changed in _milder(problem):
        if any(stage.attention for replica in replicas for stage in replica.stages):
            break  # what they hold elsewhere would have to be laid out anew
        moved = [_under(changed, replica) for replica in replicas]
        fits = all(stage.total_bytes <= stage.usable_bytes for replica in moved for stage in replica.stages)
        again = _judge(changed, moved, judged.flow, judged.predictor) if fits else None
        if again is not None and not any(limit.exceeded for limit in again.limits):
            return f"set {words}"
    relaxed = " and ".join(f"{limit.name} to {_up(limit.predicted)}" for limit in exceeded)
    return f"relax {relaxed}, or choose another device"


def _under(problem: PlacementProblem, replica: Replica) -> Replica:
    """The same layers on the same devices, with the memory that they need under this problem."""
    load = replica_load(problem, replica.weight, replica.role)
    stages = (
        stage
        for group in replica.groups
        for stage in group_on(
            load,
            [(load.cluster.device(member.device), member.share) for member in group],
            *group[0].layers,
            split=group[0].split,
        )
    )
    return replace(replica, stages=tuple(stages))


def _milder(problem: PlacementProblem) -> Iterator[tuple[str, PlacementProblem]]:
    """The problem with fewer bits, fewer or more requests at once, or both, the mildest first."""
    own = problem.workload.concurrency
    bits = [(f"--weight-bits {b}", problem.form.with_weight_bits(b)) for b in (8, 4)]
    bits = [(words, form) for words, form in bits if form.weight_bits < problem.form.weight_bits]
    halves = [own >> i for i in range(1, own.bit_length())]
    loads = [
        (f"--concurrency {n}", replace(problem.workload, concurrency=n))
        for n in (*halves, *(own << i for i in range(1, 7)))
    ]
    yield from ((words, replace(problem, form=form)) for words, form in bits)
    yield from ((words, replace(problem, workload=load)) for words, load in loads)
    for (some, form), (more, load) in itertools.product(bits, loads):
        yield f"{some} and {more}", replace(problem, form=form, workload=load)


def _up(value: float) -> str:
    """Three digits, never below the value."""
    shown = float(f"{value:.3g}")
    return f"{value:.3g}" if shown >= value else f"{float(f'{value * 1.006:.3g}'):g}"


def _names(replicas: Sequence[Replica]) -> str:
    return ", ".join(repr(name) for replica in replicas for name in replica.devices)


def _per_request(
    problem: PlacementProblem,
    replicas: Sequence[Replica],
    found: Sequence[Prediction],
    rate: Callable[[DeviceProfile], float | None],
    scale: float,
) -> float | None:
    """What a request takes of something that its replica's devices spend by time, in the mean over requests.

    None if one of the devices does not tell.
    """
    total = 0.0
    for replica, prediction in zip(replicas, found, strict=True):
        for name in replica.devices:
            value = rate(problem.cluster.device(name))
            if value is None:
                return None
            total += replica.weight * value * scale * prediction.device_s
    return total
