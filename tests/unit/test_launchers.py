"""Plans as settings of other engines: every launcher's contract, and each engine's published fields."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cli_support import Pentad
from pentad import registry
from pentad.choice import Choice, build
from pentad.errors import Incompatible
from pentad.resource.launching.base import Launcher, degrees_of
from pentad.resource.placement import Workload
from pentad.resource.placement.plan import Handoff, Plan, Replica, Stage

LOAD = Workload(prompt_tokens=512, new_tokens=128, concurrency=8)
NAMES = registry.known("launcher")
MII = {
    "deployment_name": str, "deployment_type": str, "model_config": dict, "port_number": int,
    "enable_restful_api": bool, "restful_api_port": int, "hostfile": str, "version": int,
}  # fmt: skip
MII_MODEL = {
    "model_name_or_path": str, "tokenizer": str, "task": str, "tensor_parallel": int,
    "quantization_mode": str, "inference_engine_config": dict, "torch_dist_port": int,
    "zmq_port_number": int, "replica_num": int,
    "replica_configs": list, "device_map": str, "max_length": int, "sync_debug": bool,
    "profile_model_time": bool, "all_rank_output": bool,
}  # fmt: skip
"""The fields of MII's MIIConfig and ModelConfig, which refuse others."""
COLOSSAL = {
    "max_batch_size": int, "max_output_len": int, "max_input_len": int, "dtype": str, "kv_cache_dtype": str,
    "prompt_template": str, "do_sample": bool, "beam_width": int, "prefill_ratio": float, "pad_input": bool,
    "block_size": int, "tp_size": int, "pp_size": int, "micro_batch_size": int,
    "micro_batch_buffer_size": int, "use_cuda_kernel": bool, "high_precision": bool, "use_cuda_graph": bool,
}  # fmt: skip
"""Fields of Colossal-AI's InferenceConfig."""


def stages(pipeline: int, tensor: int, copy: int, layers: Sequence[int] | None = None) -> tuple[Stage, ...]:
    counts = layers or [4] * pipeline
    found, first = [], 0
    for place, count in enumerate(counts):
        found += [
            Stage(
                device=f"d{copy}.{place}.{part}",
                first_layer=first,
                end_layer=first + count,
                weight_bytes=1,
                kv_bytes=1,
                activation_bytes=1,
                usable_bytes=8,
                share=1 / tensor,
                split="none" if tensor == 1 else "tensor",
            )
            for part in range(tensor)
        ]
        first += count
    return tuple(found)


def plan(replicas: Sequence[Replica], handoffs: tuple[Handoff, ...] = ()) -> Plan:
    return Plan(
        strategy="test", model="m7", replicas=tuple(replicas), handoffs=handoffs, ttft_s=1, inter_token_s=1,
        throughput_tokens_per_s=1, binding="none", cost_per_request=None, energy_j_per_request=None,
        source="assumed",
    )  # fmt: skip


def even(data: int = 1, pipeline: int = 1, tensor: int = 1) -> Plan:
    return plan([Replica(stages=stages(pipeline, tensor, i), weight=1 / data) for i in range(data)])


def launcher(name: str) -> Launcher:
    return build("launcher", Choice(name=name))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
class TestEveryLauncher:
    def test_starts_a_model_on_one_device(self, name: str) -> None:
        found = launcher(name).launch(even(), LOAD, "org/m7")
        assert found.commands
        assert "org/m7" in json.dumps([found.commands, found.settings])
        assert all(isinstance(word, str) for command in found.commands for word in command)

    def test_refuses_plans_that_no_even_split_follows(self, name: str) -> None:
        unequal = [Replica(stages=stages(2, 1, 0, (2, 6)))]
        halves = stages(1, 2, 0)
        apart = [
            Replica(stages=stages(1, 1, 0), role="prefill"),
            Replica(stages=stages(1, 1, 1), role="decode"),
        ]
        forms = [Replica(stages=stages(1, 2, 0), weight=0.5), Replica(stages=stages(2, 1, 1), weight=0.5)]
        for replicas, why in (
            (unequal, "2, 6 layers"),
            ([Replica(stages=_shared(halves, 0.3))], "unequal shares"),
            (forms, "2 forms"),
        ):
            with pytest.raises(Incompatible, match=why) as caught:
                launcher(name).launch(plan(replicas), LOAD, "org/m7")
            assert "--strategy" in (caught.value.hint or "")
        parted = plan(apart, (Handoff(source=0, target=1, weight=1.0),))
        with pytest.raises(Incompatible, match="phases"):
            launcher(name).launch(parted, LOAD, "org/m7")


def _shared(halves: tuple[Stage, ...], share: float) -> tuple[Stage, ...]:
    return replace(halves[0], share=share), replace(halves[1], share=1 - share)


def test_the_degrees_of_a_plan_are_its_copies_stages_and_shares() -> None:
    found = degrees_of(even(2, 3, 4), "x")
    assert (found.data, found.pipeline, found.tensor, found.devices) == (2, 3, 4, 24)


def holds(settings: dict[str, Any], fields: dict[str, type]) -> None:
    for name, value in settings.items():
        assert isinstance(value, fields[name]), (name, value)


@pytest.mark.row("be-deepspeed", "mechanism", claims=(1,))
def test_mii_takes_the_settings_and_the_command_carries_them(tmp_path: pathlib.Path) -> None:
    found = launcher("deepspeed").launch(even(2, 1, 4), LOAD, "org/m7")
    settings = dict(found.settings)
    holds(settings, MII)
    holds(settings["model_config"], MII_MODEL)
    assert settings["model_config"] == {
        "model_name_or_path": "org/m7", "tensor_parallel": 4, "replica_num": 2, "max_length": 640,
    }  # fmt: skip
    double = "import json\n\ndef serve(mii_config):\n    print(json.dumps(mii_config))\n"
    (tmp_path / "mii.py").write_text(double)
    python, *rest = found.commands[-1]
    assert python == "python"
    ran = subprocess.run([sys.executable, *rest], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == settings
    with pytest.raises(Incompatible, match="no pipeline parallelism"):
        launcher("deepspeed").launch(even(1, 2, 1), LOAD, "org/m7")


@pytest.mark.row("be-colossal", "mechanism", claims=(1,))
@pytest.mark.parametrize(("data", "pipeline", "tensor"), [(4, 1, 1), (1, 4, 1), (1, 1, 4), (2, 2, 2)])
def test_colossal_makes_the_copies_stages_and_shares_of_the_plan(
    data: int, pipeline: int, tensor: int
) -> None:
    found = launcher("colossal").launch(even(data, pipeline, tensor), LOAD, "org/m7")
    inference, plugin = found.settings["inference"], found.settings["plugin"]
    holds(inference, COLOSSAL)
    assert (inference["tp_size"], inference["pp_size"]) == (tensor, pipeline)
    assert (inference["max_input_len"], inference["max_output_len"]) == (512, 128)
    # Its plugin has a copy for as many processes as are left, and cuts a batch for its stages.
    assert found.settings["nproc"] // (plugin["tp_size"] * plugin["pp_size"]) == data
    assert plugin["num_microbatches"] == (pipeline if pipeline > 1 else None)
    assert found.commands[-1][:4] == ("colossalai", "run", "--nproc_per_node", str(data * pipeline * tensor))


@pytest.mark.row("be-tensorrt-llm", "mechanism", claims=(2,))
def test_flags_of_a_build_follow_from_plan_and_load() -> None:
    convert, built, serve = launcher("tensorrt-llm").launch(even(1, 2, 4), LOAD, "org/m7").commands
    for command in (convert, serve):
        assert command[-4:] == ("--tp_size", "4", "--pp_size", "2")
    flags = dict(zip(built[1::2], built[2::2], strict=True))
    assert flags["--max_batch_size"] == "8"
    assert flags["--max_seq_len"] == "640"
    assert flags["--max_num_tokens"] == "512"
    assert flags["--workers"] == "8"
    with pytest.raises(Incompatible, match="no data parallelism"):
        launcher("tensorrt-llm").launch(even(2), LOAD, "org/m7")


def test_a_plan_is_printed_as_the_engines_command(pentad_: Pentad) -> None:
    asked = ("plan", "gpt3-6.7b", "--device", "a100-sxm-80gb", "--launch")
    assert "vllm serve gpt3-6.7b --tensor-parallel-size 1" in pentad_(*asked, "vllm").out
    found = json.loads(pentad_(*asked, "vllm", "--json").out)
    assert found["settings"]["max-model-len"] == 640
    refused = pentad_(*asked, "nothing")
    assert refused.status == 2
    assert "unknown launcher 'nothing'" in refused.err
