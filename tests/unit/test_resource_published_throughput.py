"""Row prof-gpu: what a roofline says of throughputs that engines' makers and users have published."""

from __future__ import annotations

import pytest

from evidence.plugin import Measure
from pentad.execution.device import Cluster, DeviceProfile, MemoryTier
from pentad.resource.matrices import PUBLISHED_BANDWIDTH_FRACTION, PUBLISHED_COMPUTE_FRACTION, flops_per_s
from pentad.resource.placement.base import PlacementProblem, Workload
from pentad.resource.placement.groups import group_on
from pentad.resource.placement.offline import batch_tokens_per_s
from pentad.resource.placement.plan import Replica
from pentad.resource.placement.predict import pipeline_cost
from published_throughput import FITTED, ROWS, errors, fitted, predicted, spec_of

WITHIN = 0.25
JUDGED = [row for row in ROWS if row["role"] == "judge"]


def test_constants_are_fitted_on_rows_that_are_not_judged() -> None:
    assert {row["model"] for row in ROWS if row["role"] == "fit"} == {"gptj-6b"}
    assert "gptj-6b" not in {row["model"] for row in JUDGED}
    assert all(row["source"] for row in ROWS)
    assert fitted() == FITTED
    # Two of them are what plans take for every published device.
    assert (FITTED.compute, FITTED.bandwidth) == (PUBLISHED_COMPUTE_FRACTION, PUBLISHED_BANDWIDTH_FRACTION)


@pytest.mark.row("prof-gpu", "mechanism")
def test_a_full_batch_is_its_prompts_and_then_a_step_for_each_token() -> None:
    device = DeviceProfile(
        name="box",
        kind="gpu",
        source="measured",
        memory=(MemoryTier(name="hbm", capacity_bytes=10**12, read_bytes_per_s=1e12),),
        flops_per_s={"f16": 1e18},
        extra={"step_overhead_s": 1.0},
    )
    spec = spec_of("llama2-7b")
    load = Workload(prompt_tokens=100, new_tokens=11, concurrency=8, max_batch_tokens=400)
    problem = PlacementProblem(spec=spec, cluster=Cluster(devices=(device,)), workload=load)
    stages = group_on(problem, [(device, 1.0)], 0, spec.layers)
    rate = batch_tokens_per_s(problem, pipeline_cost(problem, Replica(stages=stages)))
    # Steps take about a second: two for eight prompts of which four go together, ten for the further tokens.
    assert rate == pytest.approx(8 * 11 / 12, rel=0.03)
    slower = FITTED.applied(device, spec.layers)
    assert flops_per_s(slower, 16) == 1e18, "a measured rate is what a device reaches"


@pytest.mark.row("prof-gpu", "effect", claims=(1,))
def test_published_throughput_is_predicted_within_a_quarter(measured: Measure) -> None:
    found = {pair: sum(map(abs, off)) / len(off) for pair, off in errors(JUDGED, FITTED).items()}
    assert len(found) == 18, "every pair that was written down is judged"
    kept = [pair for pair, error in found.items() if error <= WITHIN]
    serving = {model for engine, _, model in kept if engine != "llama.cpp"}
    measured("models of batching engines within 25%", len(serving), at_least=3)
    measured("pairs of engine, device and model within 25%, of 18", len(kept), at_least=5)
    measured("devices with such a pair", len({device for _, device, _ in kept}), at_least=5)
    middle = sorted(found.values())[len(found) // 2]
    measured("median error of all pairs", middle, at_most=WITHIN)


def test_batches_that_do_not_fit_are_left_out() -> None:
    large = next(
        row
        for row in JUDGED
        if row["model"] == "llama2-7b" and row["batch"] == 64 and row["new_tokens"] == 2048
    )
    assert predicted({**large, "prompt_tokens": 2048}, FITTED) is None
