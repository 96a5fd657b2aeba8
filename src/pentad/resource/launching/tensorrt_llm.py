"""TensorRT-LLM: the build of an engine, and its server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pentad.ranges import in_range
from pentad.resource.launching.base import Launch, degrees_of, refuse
from pentad.resource.placement.base import Workload
from pentad.resource.placement.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorrtLlm:
    """`trtllm-build` of a checkpoint that was converted for the plan, and `trtllm-serve` of what it makes.

    Batching is in flight over paged keys and values; prompts are cut into the plan's chunks. Copies of the
    model are started once each, so a plan with several is refused.

    Source: TensorRT-LLM, docs of trtllm-build (build flags) and trtllm-serve.
    """

    name: ClassVar[str] = "tensorrt-llm"

    dtype: Literal["auto", "float16", "bfloat16"] = "auto"
    """Of weights and activations."""
    port: int = 8000
    """Of the server."""

    def __post_init__(self) -> None:
        in_range("port", self.port, least=1, most=65535)

    def launch(self, plan: Plan, workload: Workload, model: str) -> Launch:
        """See Launcher."""
        degrees = degrees_of(plan, "TensorRT-LLM")
        refuse("trtllm-serve", "data", degrees.data)
        flags = {
            "max_batch_size": workload.concurrency,
            "max_input_len": workload.prompt_tokens,
            "max_seq_len": workload.prompt_tokens + workload.new_tokens,
            "max_num_tokens": max(workload.max_batch_tokens, workload.concurrency),
            "kv_cache_type": "paged",
            "use_paged_context_fmha": "enable",
            "gemm_plugin": self.dtype,
            "workers": degrees.tensor * degrees.pipeline,
        }
        split = ("--tp_size", str(degrees.tensor), "--pp_size", str(degrees.pipeline))
        return Launch(
            commands=(
                ("python", "convert_checkpoint.py", "--model_dir", model, "--output_dir", "checkpoint",
                 "--dtype", self.dtype, *split),
                ("trtllm-build", "--checkpoint_dir", "checkpoint", "--output_dir", "engine",
                 *(word for name, value in flags.items() for word in (f"--{name}", str(value)))),
                ("trtllm-serve", "engine", "--tokenizer", model, "--port", str(self.port), *split),
            ),
            settings={"build": flags, "mapping": {"tp_size": degrees.tensor, "pp_size": degrees.pipeline}},
        )  # fmt: skip
