"""From stages to a plan: predicted latencies, the objective's limits, and what binds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pentad.errors import Infeasible
from pentad.execution.device import DeviceProfile
from pentad.resource.cost import chunks
from pentad.resource.placement.base import (
    PlacementProblem,
    Plan,
    Replica,
    Stage,
    replica_load,
    stage_cost,
    stage_on,
)
from pentad.resource.placement.pipeline import PipelineCost, pipeline_links
from pentad.resource.step_shape import StepShape
from pentad.types import Decision

_SOURCES = ("measured", "published", "assumed")
"""From the strongest evidence to the weakest."""
_NEEDED = {"max_cost": "price_per_hour", "max_energy_j": "power_w"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a pipeline of stages (often one) would do under the workload."""

    ttft_s: float
    inter_token_s: float
    throughput_tokens_per_s: float
    completion_s: float
    device_s: float
    """A request's share of its pipeline's time: the time while all are served, divided by all."""
    binding_term: str


def predict(problem: PlacementProblem, stages: Sequence[Stage]) -> Prediction:
    """Latencies and throughput with `concurrency` equal requests in flight.

    With p stages the sequences form g = min(p, concurrency) groups that follow each other through
    the pipeline: a group's next token takes one round, at least as long as the slowest stage needs
    for all groups. A new prompt's chunks share each step with the others' decodes.
    """
    load = problem.workload
    pipeline = pipeline_cost(problem, stages)
    groups = min(len(stages), load.concurrency)
    context = load.prompt_tokens + load.new_tokens // 2
    step = StepShape.decode(-(-load.concurrency // groups), context)
    times = pipeline.times(step)
    inter_token_s = max(sum(times), groups * max(times))

    others = StepShape.decode(load.concurrency - 1, context) if load.concurrency > 1 else None
    ttft_s = prefill_s = 0.0
    prompt = chunks(load.prompt_tokens, load.max_batch_tokens)
    for i, (cached, tokens) in enumerate(prompt):
        rows = int(i == len(prompt) - 1)
        chunk = StepShape.prefill(tokens, cached=cached, rows=rows)
        mixed = pipeline.times(chunk + others if others else chunk)
        ttft_s += sum(mixed) if i == 0 else max(mixed)
        prefill_s += max(pipeline.times(chunk))
    round_s = load.concurrency * prefill_s + load.new_tokens * inter_token_s
    slowest = times.index(max(times))
    return Prediction(
        ttft_s=ttft_s,
        inter_token_s=inter_token_s,
        throughput_tokens_per_s=load.concurrency * load.new_tokens / round_s,
        device_s=round_s / load.concurrency,
        completion_s=ttft_s + (load.new_tokens - 1) * inter_token_s,
        binding_term=f"{pipeline.stages[slowest].binding(step)} on {stages[slowest].device!r}",
    )


def pipeline_cost(problem: PlacementProblem, stages: Sequence[Stage]) -> PipelineCost:
    """The step times of a replica. Raises Infeasible where consecutive stages have no link."""
    return PipelineCost(
        spec=problem.spec,
        form=problem.form,
        stages=tuple(stage_cost(problem, stage) for stage in stages),
        links=pipeline_links(problem.cluster, [stage.device for stage in stages]),
    )


def together(found: Sequence[Prediction]) -> Prediction:
    """What replicas do side by side: the slowest one's latencies, the sum of what they generate."""
    slowest = max(found, key=lambda one: one.completion_s)
    return replace(
        slowest,
        ttft_s=max(one.ttft_s for one in found),
        inter_token_s=max(one.inter_token_s for one in found),
        throughput_tokens_per_s=sum(one.throughput_tokens_per_s for one in found),
    )


def finish(strategy: str, problem: PlacementProblem, *replicas: Replica) -> Plan:
    """The plan of replicas whose stages fit, once the objective is met.

    Raises:
        Infeasible: a limit of the objective cannot be met, or not be checked; the hint was tried.
    """
    judged = _judge(problem, replicas)
    _refuse_excess(problem, replicas, judged)
    prediction = judged.prediction
    stages = [stage for replica in replicas for stage in replica.stages]
    profiles = [problem.cluster.device(stage.device) for stage in stages]
    pressures = {f"memory of {stage.device!r}": stage.total_bytes / stage.usable_bytes for stage in stages}
    pressures |= {limit.name: limit.predicted / limit.allowed for limit in judged.limits if limit.allowed}
    nearest = max(pressures, key=pressures.__getitem__)
    return Plan(
        strategy=strategy,
        model=problem.spec.name,
        replicas=replicas,
        ttft_s=prediction.ttft_s,
        inter_token_s=prediction.inter_token_s,
        throughput_tokens_per_s=prediction.throughput_tokens_per_s,
        binding=nearest
        if len(pressures) > len(stages) or pressures[nearest] > 0.8
        else prediction.binding_term,
        cost_per_request=judged.cost,
        energy_j_per_request=judged.energy_j,
        source=max((profile.source for profile in profiles), key=_SOURCES.index),
        decisions=(
            Decision(
                layer="resource",
                policy=strategy,
                subject="placement",
                chosen="; ".join(_written(replica, len(replicas)) for replica in replicas),
                candidates=tuple((name, round(value, 4)) for name, value in pressures.items()),
                constraint=nearest,
            ),
        ),
    )


def _written(replica: Replica, count: int) -> str:
    stages = ", ".join(f"{s.device}:{s.first_layer}-{s.end_layer}" for s in replica.stages)
    return stages if count == 1 else f"{stages} for {replica.weight:.0%}"


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


def _judge(problem: PlacementProblem, replicas: Sequence[Replica]) -> _Judged:
    """The prediction beside every limit that was asked for. Raises Infeasible where one can't be checked."""
    wishes = problem.objective
    found = [predict(replica_load(problem, replica.weight), replica.stages) for replica in replicas]
    prediction = together(found)
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
    return _Judged(prediction=prediction, cost=cost, energy_j=energy_j, limits=tuple(limits))


def _refuse_excess(problem: PlacementProblem, replicas: Sequence[Replica], judged: _Judged) -> None:
    exceeded = [limit for limit in judged.limits if limit.exceeded]
    if exceeded:
        first = exceeded[0]
        raise Infeasible(
            f"model {problem.spec.name!r} on {_names(replicas)} has a predicted {first.name} of "
            f"{first.predicted:.3g}, asked is at most {first.allowed:.3g}",
            hint=_remedy(problem, replicas, exceeded),
            param=first.name,
        )


def _remedy(problem: PlacementProblem, replicas: Sequence[Replica], exceeded: Sequence[_Limit]) -> str:
    """The mildest change under which the same stages keep every limit; each was tried."""
    for words, changed in _milder(problem):
        moved = [_under(changed, replica) for replica in replicas]
        fits = all(stage.total_bytes <= stage.usable_bytes for replica in moved for stage in replica.stages)
        if fits and not any(limit.exceeded for limit in _judge(changed, moved).limits):
            return f"set {words}"
    relaxed = " and ".join(f"{limit.name} to {_up(limit.predicted)}" for limit in exceeded)
    return f"relax {relaxed}, or choose another device"


def _under(problem: PlacementProblem, replica: Replica) -> Replica:
    """The same layers on the same devices, with the memory that they need under this problem."""
    load = replica_load(problem, replica.weight)
    stages = (
        stage_on(load, load.cluster.device(s.device), s.first_layer, s.end_layer) for s in replica.stages
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
    return ", ".join(repr(stage.device) for replica in replicas for stage in replica.stages)


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
        for stage in replica.stages:
            value = rate(problem.cluster.device(stage.device))
            if value is None:
                return None
            total += replica.weight * value * scale * prediction.device_s
    return total
