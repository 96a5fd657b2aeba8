"""From stages to predicted latencies and throughput, of one replica and of all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pentad.resource.cost import chunks
from pentad.resource.placement.base import PlacementProblem, replica_load, stage_cost
from pentad.resource.placement.pipeline import (
    GroupCost,
    PipelineCost,
    link_between,
    pipeline_links,
    ring_links,
)
from pentad.resource.placement.plan import Handoff, Replica
from pentad.resource.step_shape import StepShape


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


def predict(problem: PlacementProblem, replica: Replica) -> Prediction:
    """Latencies and throughput with `concurrency` equal requests in flight, both phases in one replica.

    With p stages the sequences form g = min(p, concurrency) groups that follow each other through
    the pipeline: a group's next token takes one round, at least as long as the slowest stage needs
    for all groups. A new prompt's chunks share each step with the others' decodes.
    """
    load = problem.workload
    pipeline = pipeline_cost(problem, replica)
    inter_token_s, binding = _decoding(problem, replica, pipeline)
    context = load.prompt_tokens + load.new_tokens // 2
    others = StepShape.decode(load.concurrency - 1, context) if load.concurrency > 1 else None
    ttft_s, prefill_s = _prefilling(problem, pipeline, others)
    round_s = load.concurrency * prefill_s + load.new_tokens * inter_token_s
    return Prediction(
        ttft_s=ttft_s,
        inter_token_s=inter_token_s,
        throughput_tokens_per_s=load.concurrency * load.new_tokens / round_s,
        device_s=round_s / load.concurrency,
        completion_s=ttft_s + (load.new_tokens - 1) * inter_token_s,
        binding_term=binding,
    )


def _decoding(problem: PlacementProblem, replica: Replica, pipeline: PipelineCost) -> tuple[float, str]:
    """Seconds between tokens of all sequences, and the term and device that this hangs on."""
    load = problem.workload
    groups = min(len(pipeline.stages), load.concurrency)
    context = load.prompt_tokens + load.new_tokens // 2
    step = StepShape.decode(-(-load.concurrency // groups), context)
    times = pipeline.times(step)
    slowest = times.index(max(times))
    device = replica.leaders[slowest]
    return (
        max(sum(times), groups * max(times)),
        f"{pipeline.stages[slowest].binding(step)} on {device!r}",
    )


def _prefilling(
    problem: PlacementProblem, pipeline: PipelineCost, others: StepShape | None
) -> tuple[float, float]:
    """Seconds to a prompt's first token beside others' decodes, and those that it alone takes up."""
    load = problem.workload
    ttft_s = prefill_s = 0.0
    prompt = chunks(load.prompt_tokens, load.max_batch_tokens)
    for i, (cached, tokens) in enumerate(prompt):
        rows = int(i == len(prompt) - 1)
        chunk = StepShape.prefill(tokens, cached=cached, rows=rows)
        mixed = pipeline.times(chunk + others if others else chunk)
        ttft_s += sum(mixed) if i == 0 else max(mixed)
        prefill_s += max(pipeline.times(chunk))
    return ttft_s, prefill_s


def pipeline_cost(problem: PlacementProblem, replica: Replica) -> PipelineCost:
    """The step times of a replica. Raises Infeasible where a link between its devices is missing."""
    return PipelineCost(
        spec=problem.spec,
        form=problem.form,
        stages=tuple(
            GroupCost(
                members=tuple(stage_cost(problem, stage) for stage in group),
                shares=tuple(stage.share for stage in group),
                split=group[0].split,
                ring=ring_links(problem.cluster, [stage.device for stage in group]),
            )
            for group in replica.groups
        ),
        links=pipeline_links(problem.cluster, replica.leaders),
    )


def predict_all(
    problem: PlacementProblem, replicas: Sequence[Replica], handoffs: Sequence[Handoff]
) -> tuple[list[Prediction], Prediction]:
    """Each replica by itself and all together, each with its share of the requests."""
    if handoffs:
        return _predict_phases(problem, replicas, handoffs)
    found = [predict(replica_load(problem, replica.weight), replica) for replica in replicas]
    return found, together(found)


def together(found: Sequence[Prediction]) -> Prediction:
    """What replicas do side by side: the slowest one's latencies, the sum of what they generate."""
    slowest = max(found, key=lambda one: one.completion_s)
    return replace(
        slowest,
        ttft_s=max(one.ttft_s for one in found),
        inter_token_s=max(one.inter_token_s for one in found),
        throughput_tokens_per_s=sum(one.throughput_tokens_per_s for one in found),
    )


def handoff_s(problem: PlacementProblem, source: Replica, target: Replica) -> float:
    """Seconds that a prompt's keys and values take over the link of two replicas' first devices.

    Raises Infeasible where there is none.
    """
    link = link_between(problem.cluster, source.devices[0], target.devices[0])
    size = problem.form.kv_bytes(problem.spec, problem.workload.prompt_tokens)
    return link.latency_s + size / link.bytes_per_s


def _predict_phases(
    problem: PlacementProblem, replicas: Sequence[Replica], handoffs: Sequence[Handoff]
) -> tuple[list[Prediction], Prediction]:
    """Prompts and answers on different replicas: neither waits for the other's steps.

    Requests are served at the rate of the slower of: the prefill replicas, each with its share, and
    `concurrency` requests in flight that each take a completion. Queueing is not part of it.
    """
    load = problem.workload
    ttfts: list[float] = []
    gaps: list[tuple[float, str]] = []
    prefill_rate = float("inf")
    for replica in replicas:
        own = replica_load(problem, replica.weight, replica.role)
        pipeline = pipeline_cost(own, replica)
        if replica.role == "prefill":
            ttft_s, prefill_s = _prefilling(own, pipeline, None)
            ttfts.append(ttft_s)
            prefill_rate = min(prefill_rate, 1 / (replica.weight * prefill_s))
        else:
            gaps.append(_decoding(own, replica, pipeline))
    moved_s = max(handoff_s(problem, replicas[h.source], replicas[h.target]) for h in handoffs)
    ttft_s, (inter_token_s, binding) = max(ttfts), max(gaps)
    completion_s = ttft_s + moved_s + (load.new_tokens - 1) * inter_token_s
    rate = min(prefill_rate, load.concurrency / completion_s)
    if rate == prefill_rate:
        binding = "prefill replicas"
    whole = Prediction(
        ttft_s=ttft_s,
        inter_token_s=inter_token_s,
        throughput_tokens_per_s=rate * load.new_tokens,
        completion_s=completion_s,
        device_s=1 / rate,
        binding_term=binding,
    )
    return [replace(whole, device_s=1 / (rate * replica.weight)) for replica in replicas], whole
