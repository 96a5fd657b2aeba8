"""Elastic against static sequence parallelism, on the load, the model and the node of the LoongServe paper.

LWM-1M-Text (LLaMA 2 7B) on eight A100 80 GB, instances of two; a third each of the prompts are as long as
those of ShareGPT, L-Eval and LV-Eval, by the ranges of the paper's table, drawn evenly over their logarithm;
a request may take 25 times what it takes alone, to its first token and between tokens. Loads, fleet and
objective were fixed before anything was measured, seed 1 was looked at meanwhile; measured are seeds 2 and 3.
Goodput is the highest rate at which nine requests in ten are in time. Elastic degrees had 0.25, 0.57 and 0.44
requests a second with seeds 1 to 3; degree 2 had 0.09 and degree 4 had 0.06 with seed 1. Replicas without
sequence parallelism (degree 1) are no static degree of it: they refuse what is longer than 260,000 tokens, up
to one request in ten. Where that is allowed, little is gained over them: they had 0.17 with seed 1, less than
0.57 with seed 2, and as much as elastic degrees with seed 3.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import phase_worlds
from evidence.plugin import Measure
from pentad.execution.device import Cluster, LinkSpeed
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource.placement import PlacementProblem, Workload
from pentad.resource.placement.loongserve import LoongServe
from pentad.resource.placement.sequence_parallel import sequence_cost
from pentad.resource.simulator import Fleet, Policies, SimulationOptions, TraceItem, rescaled, simulate_fleet
from pentad.resource.step_shape import StepShape
from pentad.types import Objective

LWM = uniform_spec(
    name="lwm-7b",
    family="llama",
    vocab_size=32_000,
    layers=32,
    width=4096,
    heads=32,
    kv_heads=32,
    head_dim=128,
    ffn_width=11_008,
    context_length=1_048_576,
    positions=Rope(dim=128),
)
DEVICES = phase_worlds.several("a100-sxm-80gb", 8)
ASKED = PlacementProblem(
    spec=LWM,
    cluster=Cluster(devices=DEVICES, default_link=LinkSpeed(bytes_per_s=3e11, latency_s=5e-6)),
    workload=Workload(prompt_tokens=50_000, new_tokens=128, concurrency=4),
)
LENGTHS = (((4, 2300), (20, 400)), ((2700, 210_500), (20, 120)), ((15_100, 497_300), (20, 120)))
REQUESTS = 60
SLOWER = 25.0
SHARE = 0.9
OPTIONS = SimulationOptions(limits=EngineLimits(max_batch_tokens=8192, max_sequences=256, max_waiting=1000))


def trace(seed: int) -> tuple[TraceItem, ...]:
    """Requests at one a second in the mean."""
    cost = sequence_cost(ASKED, [(a.name, b.name) for a, b in zip(DEVICES[::2], DEVICES[1::2], strict=True)])
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1.0, REQUESTS))
    items = []
    for i, at in enumerate(arrivals):
        (least, most), answers = LENGTHS[draw.integers(len(LENGTHS))]
        prompt = int(math.exp(draw.uniform(math.log(least), math.log(most))))
        wishes = Objective(
            ttft_s=SLOWER * cost.prompt_s(StepShape.prefill(prompt), 4),
            inter_token_s=SLOWER * cost.answer_s(StepShape.decode(1, prompt), 1),
        )
        answer = int(draw.integers(*answers, endpoint=True))
        items.append(
            TraceItem(
                id=f"r{i}", arrival_s=float(at), prompt_tokens=prompt, output_tokens=answer, objective=wishes
            )
        )
    return rescaled(items, 1.0)


def attained(items: tuple[TraceItem, ...], rate: float, degree: int | None) -> float:
    plan = LoongServe(tensor=2, degree=degree).plan(ASKED)
    fleet = Fleet(spec=LWM, cluster=ASKED.cluster, plan=plan)
    policies = Policies.of(offload="flow")
    return simulate_fleet(rescaled(items, rate), fleet, policies, options=OPTIONS).total.attainment


@pytest.mark.slow
@pytest.mark.row("par-loongserve", "effect", claims=(1,))
@pytest.mark.parametrize("seed", [2, 3])
def test_mixed_lengths_are_served_at_a_higher_rate_than_by_any_static_degree(
    seed: int, measured: Measure
) -> None:
    items = trace(seed)
    low, high = 0.02, 0.64
    while high / low > 1.1:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if attained(items, middle, None) >= SHARE else (low, middle)
    measured("share in time with elastic degrees at its goodput", attained(items, low, None), at_least=SHARE)
    for degree in (2, 4):
        share = attained(items, low / 1.5, degree)
        measured(f"share in time with degree {degree} at that rate over 1.5", share, at_most=SHARE - 0.001)
