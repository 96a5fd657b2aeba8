"""Plans per phase against the best plan for both, and pools of several kinds against the best single kind.

Both rows ask for more than was found; what was tried, always with nine requests in ten within the objective:

- `phase-aware`, 120 requests, seed 1, every split of the devices into equal pipelines of equal groups, each
  under both schedulers: LLaMA 13B on four A100 over NVLink gained 15% on none of four mixes (two-way and
  four-way tensor parallelism that computes prompts whole serves conversations as well); OPT-66B on eight A100
  under the objectives of DistServe (table 1) on none of three; on four L40S over PCIe on conversations alone.
  `generation` is left out below: its answers outlast all arrivals of so short a load.
- `hetero-pool`, prices of cloud providers per hour, objectives of Splitwise and three times these: predicted
  gains over the best kind by itself are 1.00 to 1.28 on the four mixes, simulated 1.15 on conversations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

import phase_worlds
from evidence.plugin import Measure
from pentad.resource.placement import PlacementProblem, Plan, Replica
from pentad.resource.placement.base import replica_load
from pentad.resource.placement.finish import finish
from pentad.resource.placement.hetero_pool import HeteroPool
from pentad.resource.placement.phase_aware import PhaseAware
from pentad.resource.placement.phase_rates import Shape, stages_on
from pentad.resource.simulator import poisson
from pentad.types import Objective

SCHEDULERS = (("sarathi", True), ("fcfs", False))
PRICES = {"h100-sxm": 7.5, "a100-sxm-80gb": 3.7, "l40s": 1.9, "a10": 1.0, "tpu-v5e": 1.2}


def single_plans(asked: PlacementProblem) -> Iterator[Plan]:
    """Every division of the devices into equal replicas that compute both phases."""
    free = dataclasses.replace(asked, objective=Objective())
    names = [device.name for device in asked.cluster.devices]
    for tensor in (1, 2, 4):
        for pipeline in (1, 2, 4):
            shape = Shape(tensor=tensor, pipeline=pipeline)
            if len(names) % shape.devices:
                continue
            count = len(names) // shape.devices
            load = replica_load(free, 1 / count)
            own = [names[i * shape.devices : (i + 1) * shape.devices] for i in range(count)]
            replicas = [Replica(stages=stages_on(load, shape.groups(each)), weight=1 / count) for each in own]
            yield finish("single-plan", free, *replicas)


def beaten_by_15_percent(mix: str, seed: int) -> bool:
    """Whether no single plan serves the rate that the plan of `phase-aware` serves, over 1.15."""
    asked = phase_worlds.problem(mix, *phase_worlds.several("l40s", 4), bytes_per_s=2.5e10)
    guess = max(PhaseAware().rates(asked))
    rate = phase_worlds.goodput(asked, PhaseAware().plan(asked), mix, guess=guess, seed=seed)
    prompts, answers = phase_worlds.MIXES[mix]
    items = poisson(
        phase_worlds.REQUESTS,
        rate_per_s=rate / 1.15,
        prompt_tokens=prompts,
        output_tokens=answers,
        seed=seed,
    )
    return not any(
        phase_worlds.attained(asked, plan, items, scheduler=scheduler, hints=hints) >= 0.9
        for plan in single_plans(asked)
        for scheduler, hints in SCHEDULERS
    )


@pytest.mark.slow
@pytest.mark.row("par-phase-aware", "effect", negative=True)
def test_plans_per_phase_gain_15_percent_on_fewer_than_half_of_the_mixes(measured: Measure) -> None:
    won = sum(beaten_by_15_percent(mix, seed=2) for mix in ("code", "conversation", "summarisation"))
    measured("mixes of 3 with 15% more than any single plan", won, at_most=1)


@pytest.mark.slow
@pytest.mark.row("res-hetero-pool", "effect", negative=True)
def test_a_mixed_pool_gains_less_than_30_percent_per_unit_of_money(measured: Measure) -> None:
    devices = tuple(
        device
        for name, price in PRICES.items()
        for device in phase_worlds.several(name, 4, price_per_hour=price)
    )
    asked = phase_worlds.problem("conversation", *devices, bytes_per_s=2.5e10)
    wishes = asked.objective
    assert wishes.ttft_s is not None
    assert wishes.inter_token_s is not None
    relaxed = Objective(ttft_s=3 * wishes.ttft_s, inter_token_s=3 * wishes.inter_token_s)
    asked = dataclasses.replace(asked, objective=relaxed)
    mixed = per_money(asked, seed=2)
    single = max(
        per_money(dataclasses.replace(asked, cluster=dataclasses.replace(asked.cluster, devices=own)), seed=2)
        for kind in ("h100-sxm", "l40s")
        if (own := tuple(device for device in devices if device.name.startswith(kind)))
    )
    measured("goodput for the money over the best kind by itself", mixed / single, at_most=1.3, unit="x")


def per_money(asked: PlacementProblem, *, seed: int) -> float:
    """Requests per second within the objective, over the price of the devices that the plan uses."""
    plan = HeteroPool().plan(asked)
    used = {name for replica in plan.replicas for name in replica.devices}
    price = sum(asked.cluster.device(name).price_per_hour or 0.0 for name in used)
    schedulers = SCHEDULERS if plan.replicas[0].role == "both" else SCHEDULERS[:1]
    return max(
        phase_worlds.goodput(
            asked, plan, "conversation", guess=10.0, seed=seed, scheduler=scheduler, hints=hints
        )
        / price
        for scheduler, hints in schedulers
    )
