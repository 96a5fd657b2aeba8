"""Plan a model for a machine you do not have yet, then simulate load on it.

python examples/plan_and_simulate.py
"""

from __future__ import annotations

from pentad.execution.device import Cluster
from pentad.execution.positions import Rope, RopeScaling
from pentad.execution.scheduling import EngineLimits
from pentad.execution.uniform import uniform_spec
from pentad.resource import profile
from pentad.resource.placement import Workload, plan
from pentad.resource.simulator import SimulationOptions, poisson, simulate
from pentad.types import Objective

LLAMA_1B = uniform_spec(
    name="llama-3.2-1b",
    family="llama",
    vocab_size=128_256,
    layers=16,
    width=2048,
    heads=32,
    kv_heads=8,
    head_dim=64,
    ffn_width=8192,
    context_length=131_072,
    positions=Rope(base=500_000.0, dim=64, scaling=RopeScaling(factor=32.0)),
)


def main() -> None:
    device = profile.find("rtx-4090")
    workload = Workload(prompt_tokens=800, new_tokens=200, concurrency=8)
    chosen = plan("single", LLAMA_1B, Cluster(devices=(device,)), workload, Objective(ttft_s=1.0))
    print(f"{LLAMA_1B.name} on {device.name}: {chosen.to_dict()}")

    load = poisson(200, rate_per_s=4.0, prompt_tokens=(400, 1200), output_tokens=(50, 350), seed=1)
    options = SimulationOptions(limits=EngineLimits(max_sequences=64), kv_blocks=8192)
    report = simulate(load, LLAMA_1B, device, "sarathi", options=options, objective=Objective(ttft_s=1.0))
    print(f"p50 time to first token {report.ttft.p50 * 1000:.0f} ms, goodput {report.goodput_per_s:.2f} /s")


if __name__ == "__main__":
    main()
