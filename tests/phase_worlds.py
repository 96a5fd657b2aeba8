"""A fleet, kinds of loads and the rate that a plan serves within an objective, for tests of phases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pentad.execution.device import Cluster, DeviceProfile, LinkSpeed
from pentad.execution.scheduling import EngineLimits
from pentad.execution.spec import Rope
from pentad.execution.uniform import uniform_spec
from pentad.resource import profile
from pentad.resource.placement import PlacementProblem, Plan, Workload
from pentad.resource.placement.base import PlacementPlanner
from pentad.resource.placement.single import SingleDevice
from pentad.resource.simulator import (
    Fleet,
    Policies,
    SimulationOptions,
    TraceItem,
    poisson,
    simulate_fleet,
)
from pentad.types import Objective, RunContext

LLAMA_13B = uniform_spec(
    name="llama-13b",
    family="llama",
    vocab_size=32_000,
    layers=40,
    width=5120,
    heads=40,
    kv_heads=40,
    head_dim=128,
    ffn_width=13_824,
    context_length=8192,
    positions=Rope(dim=128),
)
"""Touvron et al. 2023, table 2."""

MIXES = {
    "code": ((500, 2500), (8, 32)),
    "conversation": ((200, 1800), (60, 200)),
    "summarisation": ((1500, 4500), (50, 150)),
    "generation": ((50, 150), (300, 500)),
}
"""Tokens of prompts and answers: the means of the Azure traces of code and conversation (Splitwise, table 1),
of LongBench as in DistServe, and of short questions with long answers."""
REQUESTS = 120
STEP = 1.1
"""Between the rates that are tried."""


def several(name: str, count: int, **changes: float) -> tuple[DeviceProfile, ...]:
    kind = profile.find(name)
    return tuple(dataclasses.replace(kind, name=f"{name}-{i}", **changes) for i in range(count))  # type: ignore[arg-type]


def problem(mix: str, *devices: DeviceProfile, bytes_per_s: float = 3e11) -> PlacementProblem:
    """A load on devices with links as of one node, under the objective of Splitwise (table 6, at the 90th
    percentile): three times the first token's time alone and one and a half times the time between tokens, on
    the fastest of the devices by itself."""
    (prompts, answers) = MIXES[mix]
    load = Workload(prompt_tokens=sum(prompts) // 2, new_tokens=sum(answers) // 2)
    cluster = Cluster(devices=devices, default_link=LinkSpeed(bytes_per_s=bytes_per_s, latency_s=5e-6))
    asked = PlacementProblem(spec=LLAMA_13B, cluster=cluster, workload=load)
    alone = SingleDevice().plan(asked)
    wishes = Objective(ttft_s=3 * alone.ttft_s, inter_token_s=1.5 * alone.inter_token_s)
    return dataclasses.replace(asked, objective=wishes)


def plan_of(asked: PlacementProblem, planner: PlacementPlanner) -> Plan:
    """A plan whose predictions may exceed the objective: what it serves is to be seen."""
    return planner.plan(dataclasses.replace(asked, objective=Objective()))


def attained(
    asked: PlacementProblem, plan: Plan, items: Sequence[TraceItem], *, scheduler: str, hints: bool
) -> float:
    """The share of the requests that meet the objective."""
    wishes = asked.objective
    if hints:  # so that the scheduler may cut prompts to what the time between tokens allows
        items = [dataclasses.replace(item, objective=wishes) for item in items]
    options = SimulationOptions(
        limits=EngineLimits(max_batch_tokens=512, max_sequences=256, max_waiting=100_000)
    )
    fleet = Fleet(spec=asked.spec, cluster=asked.cluster, plan=plan, context=RunContext(objective=wishes))
    policies = Policies.of(scheduler=scheduler, offload="fastest")
    return simulate_fleet(items, fleet, policies, options=options).total.attainment


def goodput(
    asked: PlacementProblem,
    plan: Plan,
    mix: str,
    *,
    guess: float,
    seed: int,
    scheduler: str = "sarathi",
    hints: bool = False,
) -> float:
    """The highest rate, of those that are powers of STEP, at which nine requests in ten meet the objective.

    Searched from a guess on, upwards or downwards; 0 where a 20th of it is too much.
    """
    (prompts, answers) = MIXES[mix]

    def served(rate: float) -> bool:
        items = poisson(REQUESTS, rate_per_s=rate, prompt_tokens=prompts, output_tokens=answers, seed=seed)
        return attained(asked, plan, items, scheduler=scheduler, hints=hints) >= 0.9

    low, high = None, None
    at, factor = guess, STEP**4
    while low is None or high is None:
        if served(at):
            low, at = at, at * factor
        else:
            high, at = at, at / factor
            if at < guess / 20:
                return 0.0
        if low is not None and high is not None and low > high:
            break
    assert low is not None
    assert high is not None
    for _ in range(2):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if served(middle) else (low, middle)
    return low
