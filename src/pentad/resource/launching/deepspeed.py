"""DeepSpeed-MII: a persistent deployment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from pentad.ranges import in_range
from pentad.resource.launching.base import Launch, degrees_of, refuse
from pentad.resource.placement.base import Workload
from pentad.resource.placement.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSpeed:
    """A deployment of MII with its gateway: tensor parallel replicas.

    Source: DeepSpeed-MII, README and mii/config.py (MIIConfig, ModelConfig). It has no pipeline.
    """

    name: ClassVar[str] = "deepspeed"

    port: int = 28080
    """Of the gateway, which `engine: mii` of `backends` then reaches."""

    def __post_init__(self) -> None:
        in_range("port", self.port, least=1, most=65535)

    def launch(self, plan: Plan, workload: Workload, model: str) -> Launch:
        """See Launcher."""
        degrees = degrees_of(plan, "DeepSpeed-MII")
        refuse("DeepSpeed-MII", "pipeline", degrees.pipeline)
        settings: dict[str, Any] = {
            "deployment_name": plan.model,
            "model_config": {
                "model_name_or_path": model,
                "tensor_parallel": degrees.tensor,
                "replica_num": degrees.data,
                "max_length": workload.prompt_tokens + workload.new_tokens,
            },
            "enable_restful_api": True,
            "restful_api_port": self.port,
        }
        call = f"import json, mii; mii.serve(mii_config=json.loads({json.dumps(json.dumps(settings))}))"
        return Launch(commands=(("python", "-c", call),), settings=settings)
