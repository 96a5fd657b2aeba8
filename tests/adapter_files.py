"""Random low-rank adapters in PEFT's form, for any model with plain layers."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from model_fixtures import f32_safetensors
from pentad.execution.adapters import ADAPTED
from pentad.execution.spec import ModelSpec

HF = {name: f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")} | {
    name: f"mlp.{name}_proj" for name in ("gate", "up", "down")
}


def write_adapter(
    folder: pathlib.Path,
    spec: ModelSpec,
    seed: int,
    *,
    rank: int = 8,
    strength: float = 0.2,
    only: Sequence[str] = ADAPTED,
) -> pathlib.Path:
    """An adapter that adds about `strength` times the root of its rank to what it touches."""
    dice = np.random.default_rng(seed)
    arrays = {}
    for canonical, (rows, columns) in (item for item in spec.tensors().items() if len(item[1]) == 2):
        name = canonical.rpartition(".")[2]
        if not canonical.startswith("layers.") or name not in only:
            continue
        stem = f"base_model.model.model.layers.{canonical.split('.')[1]}.{HF[name]}.lora_"
        arrays[stem + "A.weight"] = dice.standard_normal((rank, columns), np.float32) * columns**-0.5
        arrays[stem + "B.weight"] = dice.standard_normal((rows, rank), np.float32) * np.float32(strength)
    return write(folder, arrays, rank)


def write(folder: pathlib.Path, arrays: dict[str, np.ndarray], rank: int) -> pathlib.Path:
    """An adapter of these tensors."""
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(f32_safetensors(arrays))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
