"""Colossal-AI: inference, and the plugin by which the same plan is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pentad.resource.launching.base import Launch, degrees_of
from pentad.resource.placement.base import Workload
from pentad.resource.placement.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Colossal:
    """`InferenceConfig` and `HybridParallelPlugin` of a plan, and the run that gives each device a process.

    Source: Colossal-AI, colossalai/inference/config.py and booster/plugin/hybrid_parallel_plugin.py: the
    plugin makes as many copies as processes are left beside its tensor and pipeline degrees.
    """

    name: ClassVar[str] = "colossal"

    precision: Literal["fp16", "bf16", "fp32"] = "bf16"
    """Of weights and activations."""

    def launch(self, plan: Plan, workload: Workload, model: str) -> Launch:
        """See Launcher."""
        degrees = degrees_of(plan, "Colossal-AI")
        settings: dict[str, Any] = {
            "model": model,
            "nproc": degrees.devices,
            "inference": {
                "tp_size": degrees.tensor,
                "pp_size": degrees.pipeline,
                "dtype": self.precision,
                "max_batch_size": workload.concurrency,
                "max_input_len": workload.prompt_tokens,
                "max_output_len": workload.new_tokens,
                "micro_batch_size": 1,
                "micro_batch_buffer_size": degrees.pipeline,
            },
            "plugin": {
                "tp_size": degrees.tensor,
                "pp_size": degrees.pipeline,
                "precision": self.precision,
                "num_microbatches": degrees.pipeline if degrees.pipeline > 1 else None,
            },
        }
        command = ("colossalai", "run", "--nproc_per_node", str(degrees.devices), "serve.py")
        return Launch(commands=(command,), settings=settings)
