"""pentad plan --load: who runs what, the highest load that keeps an objective, and what breaks first."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from resource_samples import TINY, measured_device

from cli_support import Pentad
from pentad.application.cli.plan_load import LoadPlan, plan_load
from pentad.application.cli.planning import Ask, Described
from pentad.choice import Choice, build
from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.device import Cluster, LinkSpeed
from pentad.resource.placement import Workload
from pentad.resource.simulator import TraceItem, poisson
from pentad.types import Objective

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
LOAD = poisson(120, rate_per_s=5.0, prompt_tokens=(20, 120), output_tokens=(10, 40), seed=2)
SMALL, OTHER = TINY, dataclasses.replace(TINY, name="other")


def borne(
    models: int = 1,
    boxes: int = 2,
    load: tuple[TraceItem, ...] = LOAD,
    objective: Objective = Objective(ttft_s=0.5),  # noqa: B008 - frozen
) -> LoadPlan:
    box = measured_device()
    box = dataclasses.replace(box, extra={**box.extra, "step_overhead_s": 0.05})  # slow: few are a load
    devices = tuple(dataclasses.replace(box, name=f"box-{i}") for i in range(boxes))
    ask = Ask(
        planner=build("placement", Choice.of("data-parallel")),
        workload=Workload(),
        objective=objective,
        weight_bits=None,
        kv_bits=None,
        link_bytes_per_s=1e9,
        link_latency_s=1e-4,
    )
    described = [Described(spec=spec, form=None) for spec in (SMALL, OTHER)[:models]]
    cluster = Cluster(devices=devices, default_link=LinkSpeed(bytes_per_s=1e9, latency_s=1e-4))
    return plan_load(ask, described, cluster, load, share=0.9)


def test_the_highest_load_is_borne_and_a_little_more_is_not() -> None:
    found = borne().capacity
    assert found.highest_per_s is not None
    assert found.breaks is not None
    assert found.at_highest is not None
    assert found.at_highest.total.attainment >= 0.9
    assert found.highest_per_s < found.breaks.rate_per_s < 1.1 * found.highest_per_s
    assert found.breaks.missed == "ttft_s"
    assert found.breaks.share > 0.1
    assert found.breaks.limit in ("prompts", "answers", "places")


def test_twice_the_machines_bear_about_twice_the_load() -> None:
    one, two = (borne(boxes=boxes).capacity.highest_per_s for boxes in (1, 2))
    assert one is not None
    assert two is not None
    assert 1.4 * one < two < 3 * one


def test_each_of_several_models_has_machines_of_its_own() -> None:
    found = borne(models=2)
    own = [{device for replica in plan.replicas for device in replica.devices} for plan in found.plans]
    assert [plan.model for plan in found.plans] == [SMALL.name, "other"]
    assert all(own)
    assert not own[0] & own[1]
    with pytest.raises(Infeasible, match="2 models need as many machines at least, the cluster has 1"):
        borne(models=2, boxes=1)


def test_the_model_that_is_asked_more_gets_more_machines() -> None:
    load = tuple(
        dataclasses.replace(item, model=SMALL.name if i % 4 else "other") for i, item in enumerate(LOAD)
    )
    found = borne(models=2, boxes=4, load=load)
    assert [len(plan.replicas) for plan in found.plans] == [3, 1]


def test_an_objective_that_no_machine_meets_is_said_to_be_out_of_reach() -> None:
    found = borne(objective=Objective(inter_token_s=1e-9)).capacity
    assert found.highest_per_s is None
    assert found.breaks is not None
    assert found.breaks.missed == "inter_token_s"
    assert found.breaks.limit == "nothing"


def test_without_an_objective_or_for_a_model_that_is_not_there_it_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="none is set"):
        borne(objective=Objective())
    with pytest.raises(InvalidRequest, match="asks for model 'third', which is not planned for"):
        borne(load=(dataclasses.replace(LOAD[0], model="third"), *LOAD[1:]))


def test_the_command_tells_it_as_a_table_and_as_json(pentad_: Pentad) -> None:
    words = ("plan", "gpt3-125m", "--load", "poisson", "--limit", "12", "--cluster")
    words += (str(EXAMPLES / "cluster.yaml"), "--ttft-s", "0.5", "--strategy", "data-parallel")
    shown = pentad_(*words)
    assert "highest load" in shown.out
    assert "breaks first" in shown.out
    assert "gpu-1" in shown.out
    data = json.loads(pentad_(*words, "--json").out)
    assert data["plans"][0]["model"] == "gpt3-125m"
    assert data["highest_per_s"] > data["load_per_s"]
    refused = pentad_(*words, "--compare", "auto,single")
    assert refused.status == 2
    assert "--load plans one cluster" in refused.err
