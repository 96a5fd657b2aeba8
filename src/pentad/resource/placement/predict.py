"""From stages to predicted latencies and throughput, of one replica and of all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pentad.resource.cost import chunks
from pentad.resource.placement.base import PlacementProblem, replica_load, stage_cost
from pentad.resource.placement.costs import LayerCost
from pentad.resource.placement.operator_split import operator_cost
from pentad.resource.placement.pipeline import (
    GroupCost,
    PipelineCost,
    StageCost,
    link_between,
    pipeline_links,
    ring_links,
)
from pentad.resource.placement.plan import Handoff, Replica, Stage
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
    return predict_pipeline(problem, pipeline_cost(problem, replica, remembered=True), replica.leaders)


def predict_pipeline(problem: PlacementProblem, pipeline: PipelineCost, leaders: Sequence[str]) -> Prediction:
    """As `predict`, where the pipeline's step times are at hand.

    Args:
        leaders: the first device of each stage.
    """
    load = problem.workload
    inter_token_s, binding = decoding(problem, leaders, pipeline)
    context = load.prompt_tokens + load.new_tokens // 2
    others = _decode(load.concurrency - 1, context) if load.concurrency > 1 else None
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


def decoding(problem: PlacementProblem, leaders: Sequence[str], pipeline: PipelineCost) -> tuple[float, str]:
    """Seconds between tokens of all sequences, and the term and device that this hangs on."""
    load = problem.workload
    groups = min(len(pipeline.stages), load.concurrency)
    context = load.prompt_tokens + load.new_tokens // 2
    step = _decode(-(-load.concurrency // groups), context)
    times = pipeline.times(step)
    slowest = times.index(max(times))
    device = leaders[slowest]
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
        chunk = _prefill(tokens, cached, rows)
        mixed = pipeline.times(chunk + others if others else chunk)
        ttft_s += sum(mixed) if i == 0 else max(mixed)
        prefill_s += max(pipeline.times(chunk))
    return ttft_s, prefill_s


@lru_cache(maxsize=4096)
def _decode(sequences: int, context: int) -> StepShape:
    return StepShape.decode(sequences, context)


@lru_cache(maxsize=4096)
def _prefill(tokens: int, cached: int, rows: int) -> StepShape:
    return StepShape.prefill(tokens, cached=cached, rows=rows)


def pipeline_cost(problem: PlacementProblem, replica: Replica, *, remembered: bool = False) -> PipelineCost:
    """The step times of a replica. Raises Infeasible where a link between its devices is missing.

    Args:
        remembered: answers are kept in the problem's book, for a search that asks for few shapes often.
    """

    def cost(stage: Stage) -> LayerCost:
        if not remembered:
            return stage_cost(problem, stage)
        device = problem.cluster.device(stage.device)
        return problem.costs.cost(device, problem.spec, problem.form, stage.first_layer, stage.end_layer)

    def stage_of(group: Sequence[Stage]) -> StageCost:
        if group[0].attention:
            return operator_cost(problem, group[0])
        return GroupCost(
            members=tuple(cost(stage) for stage in group),
            shares=tuple(stage.share for stage in group),
            split=group[0].split,
            ring=ring_links(problem.cluster, [stage.device for stage in group]),
        )

    return PipelineCost(
        spec=problem.spec,
        form=problem.form,
        stages=tuple(stage_of(group) for group in replica.groups),
        links=pipeline_links(problem.cluster, replica.leaders),
    )


def predict_all(
    problem: PlacementProblem, replicas: Sequence[Replica], handoffs: Sequence[Handoff]
) -> tuple[list[Prediction], Prediction]:
    """Each replica by itself and all together, each with its share of the requests."""
    if handoffs:
        return _predict_phases(problem, replicas, handoffs)
    loads = [replica_load(problem, replica.weight) for replica in replicas]
    found = [predict(load, replica) for load, replica in zip(loads, replicas, strict=True)]
    # Each has one request at least; where that makes more than there are, some replicas stand idle in turn.
    served = sum(load.workload.concurrency for load in loads)
    return found, together(found, min(1.0, problem.workload.concurrency / served))


def together(found: Sequence[Prediction], busy: float = 1.0) -> Prediction:
    """What replicas do side by side: the slowest one's latencies, the sum of what they generate.

    Args:
        busy: share of the time for which there are requests for all of them.
    """
    slowest = max(found, key=lambda one: one.completion_s)
    return replace(
        slowest,
        ttft_s=max(one.ttft_s for one in found),
        inter_token_s=max(one.inter_token_s for one in found),
        throughput_tokens_per_s=busy * sum(one.throughput_tokens_per_s for one in found),
    )


def handoff_s(problem: PlacementProblem, source: Replica, target: Replica, *, hidden_s: float = 0.0) -> float:
    """Seconds that a prompt's keys and values take over the link of two replicas' first devices.

    Args:
        hidden_s: time of computing in which layers are sent; what is left is seen, the last layer's at least.

    Raises Infeasible where there is no link.
    """
    if source.devices[0] == target.devices[0]:
        return 0.0
    link = link_between(problem.cluster, source.devices[0], target.devices[0])
    size = problem.form.kv_bytes(problem.spec, problem.workload.prompt_tokens)
    sent_s, layers = size / link.bytes_per_s, problem.spec.layers
    return link.latency_s + max(sent_s - hidden_s * (layers - 1) / layers, sent_s / layers)


def _predict_phases(
    problem: PlacementProblem, replicas: Sequence[Replica], handoffs: Sequence[Handoff]
) -> tuple[list[Prediction], Prediction]:
    """Prompts and answers on different replicas: neither waits for the other's steps.

    Requests are served at the rate of the slower of: the prefill replicas, each with its share, and
    `concurrency` requests in flight that each take a completion. Queueing is not part of it.
    """
    load = problem.workload
    ttfts: dict[int, float] = {}
    gaps: list[tuple[float, str]] = []
    prefill_rate = float("inf")
    for place, replica in enumerate(replicas):
        own = replica_load(problem, replica.weight, replica.role)
        pipeline = pipeline_cost(own, replica)
        if replica.role == "prefill":
            ttft_s, prefill_s = _prefilling(own, pipeline, None)
            ttfts[place] = ttft_s
            prefill_rate = min(prefill_rate, 1 / (replica.weight * prefill_s))
        else:
            gaps.append(decoding(own, replica.leaders, pipeline))
    moved_s = max(
        handoff_s(
            problem,
            replicas[h.source],
            replicas[h.target],
            hidden_s=ttfts[h.source] if h.by_layer else 0.0,
        )
        for h in handoffs
    )
    ttft_s, (inter_token_s, binding) = max(ttfts.values()), max(gaps)
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
