"""What a pipeline generates when its batch is full: the throughput that benchmarks of engines publish."""

from __future__ import annotations

from pentad.resource.placement.base import PlacementProblem
from pentad.resource.placement.pipeline import PipelineCost
from pentad.resource.step_shape import StepShape

_POINTS = 8
"""Contexts at which a decoding step is timed, evenly between the first token and the last."""


def batch_tokens_per_s(problem: PlacementProblem, pipeline: PipelineCost) -> float:
    """Generated tokens per second of `concurrency` equal requests that begin together.

    Their prompts are computed first, as many in a step as `max_batch_tokens` takes, then one token of each in
    every step. So a static batch runs, and so an engine with continuous batching on the average when each
    request that ends is followed by an equal one.
    """
    load = problem.workload
    together = max(1, min(load.concurrency, load.max_batch_tokens // load.prompt_tokens))
    prompts = [(load.prompt_tokens, load.prompt_tokens)] * together
    prefill_s = sum(pipeline.times(StepShape.from_sequences(prompts, rows=together)))
    decode_s = 0.0
    for point in range(_POINTS):
        context = load.prompt_tokens + round(load.new_tokens * (point + 0.5) / _POINTS)
        decode_s += sum(pipeline.times(StepShape.decode(load.concurrency, context))) / _POINTS
    whole_s = prefill_s * load.concurrency / together + (load.new_tokens - 1) * decode_s
    return load.concurrency * load.new_tokens / whole_s
