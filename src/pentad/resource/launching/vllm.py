"""vLLM: its server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pentad.ranges import in_range
from pentad.resource.launching.base import Launch, degrees_of
from pentad.resource.placement.base import Workload
from pentad.resource.placement.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """`vllm serve` with the plan's degrees.

    Source: vLLM, engine arguments.
    """

    name: ClassVar[str] = "vllm"

    port: int = 8000
    """Of the server."""

    def __post_init__(self) -> None:
        in_range("port", self.port, least=1, most=65535)

    def launch(self, plan: Plan, workload: Workload, model: str) -> Launch:
        """See Launcher."""
        degrees = degrees_of(plan, "vLLM")
        settings = {
            "tensor-parallel-size": degrees.tensor,
            "pipeline-parallel-size": degrees.pipeline,
            "data-parallel-size": degrees.data,
            "max-model-len": workload.prompt_tokens + workload.new_tokens,
            "max-num-seqs": workload.concurrency,
            "max-num-batched-tokens": max(workload.max_batch_tokens, workload.concurrency),
            "port": self.port,
        }
        flags = (word for name, value in settings.items() for word in (f"--{name}", str(value)))
        return Launch(commands=(("vllm", "serve", model, *flags),), settings=settings)
