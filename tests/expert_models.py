"""Tiny random mixtures of experts of `transformers`, saved as folders and as GGUF files."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import safetensors.numpy
import torch
import transformers

from pentad.execution.spec import ModelSpec
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.weights import WeightSource
from pentad.model.families import family_of
from pentad.model.families.base import bind, places, spec_of_config, spec_of_gguf
from pentad.model.files.fields import Fields
from pentad.model.files.folder_files import read_json
from pentad.model.files.gguf import GgufFile
from pentad.model.files.safetensors import SafetensorsFolder

V = 160
SIZES: Mapping[str, Any] = {
    "vocab_size": V,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "attn_implementation": "eager",
}


Change = Callable[[str, np.ndarray], Iterable[tuple[str, np.ndarray]]]


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """One family in a tiny geometry."""

    config: str
    """The stem of its classes in `transformers`."""
    sizes: Mapping[str, Any]
    """Beside or in place of those above; None takes one away."""
    arch: str
    """`general.architecture` of its GGUF files."""
    metadata: Mapping[str, int | float | bool | str]
    """What such files say of the experts, behind the architecture."""
    model: str | None = None
    """The stem of its model's class where that isn't the config's."""
    without: tuple[str, ...] = ()
    """Fields of the config that are None."""
    rope_rows: str = "half"
    """`interleaved`: rows of queries and keys are reordered in GGUF files."""

    def build(self) -> Any:
        """Random weights, none of them trivial."""
        torch.manual_seed(7)
        wanted = {k: v for k, v in {**SIZES, **self.sizes}.items() if v is not None}
        wanted |= dict.fromkeys(self.without)
        config = getattr(transformers, f"{self.config}Config")(**wanted)
        model = getattr(transformers, f"{self.model or self.config}ForCausalLM")(config).eval()
        with torch.no_grad():  # what starts as ones or zeros would hide that it is missing
            for value in model.state_dict().values():
                if value.dim() <= 1 or value.std() == 0:
                    value.add_(torch.randn_like(value) * 0.2)
        return model


def save_folder(model: Any, folder: pathlib.Path) -> pathlib.Path:
    """The folder as `transformers` writes it."""
    model.save_pretrained(folder)
    return folder


def open_folder(folder: pathlib.Path) -> tuple[ModelSpec, WeightSource]:
    """Spec and weights of a folder without a tokenizer."""
    config = read_json(folder / "config.json", required=True)
    family = family_of(config.text("model_type"), config.source)
    spec = spec_of_config(family, config)
    return spec, bind(
        family, places(family.config_names, spec, config), spec, SafetensorsFolder(folder), str(folder)
    )


def save_gguf(
    model: Any, tiny: TinyModel, folder: pathlib.Path, change: Change | None = None
) -> pathlib.Path:
    """The GGUF file that the reference converter would write of the folder: names by the `gguf` package.

    Args:
        change: what the converter does to tensors of this family; names are still the folder's.
    """
    state = safetensors.numpy.load_file(folder / "model.safetensors")
    if change is not None:
        state = dict(pair for name, values in state.items() for pair in change(name, values))
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, tiny.arch)
    for key, value in _metadata(model.config, tiny).items():
        add = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
        }
        add[type(value)](f"{tiny.arch}.{key}", value)
    names = gguf.get_tensor_name_map(_architecture(tiny.arch), model.config.num_hidden_layers)
    for name, values in _stacked(state):
        stem, _, kind = name.rpartition(".")
        if kind == "e_score_correction_bias":
            stem, kind = f"{stem}.e_score_correction", "bias"
        found = names.get_name(stem)
        if name.endswith("input_linear.weight"):  # of which the reference makes two
            for part, half in zip(("gate", "up"), np.split(values, 2, axis=1), strict=True):
                writer.add_tensor(f"blk.{name.split('.')[2]}.ffn_{part}_exps.weight", half.copy())
            continue
        assert found is not None, f"the reference knows no name for {name}"
        if tiny.rope_rows == "interleaved" and re.search(r"attn_[qk]$", found):
            heads = (
                model.config.num_attention_heads if found.endswith("q") else model.config.num_key_value_heads
            )
            rows = values.reshape(heads, 2, -1, *values.shape[1:])
            values = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(values.shape)
        writer.add_tensor(f"{found}.{kind}", np.squeeze(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def open_gguf(path: pathlib.Path) -> tuple[ModelSpec, WeightSource]:
    """Spec and weights of a GGUF file without a tokenizer."""
    file = GgufFile(path)
    fields = Fields(source=str(path), values=file.metadata)
    architecture = fields.text("general.architecture")
    family = family_of(architecture, fields.source)
    own = fields.under(architecture + ".")
    spec = spec_of_gguf(family, own, file)
    return spec, bind(family, places(family.gguf_names, spec, own), spec, file, fields.source)


def runner_of(spec: ModelSpec, weights: WeightSource) -> TorchRunner:
    """The plain runner in float32."""
    return TorchRunner.load(spec, weights, num_blocks=64, dtype="float32")


def reference(model: Any, tokens: list[int]) -> np.ndarray:
    """Logits [N, V] of the reference implementation."""
    with torch.inference_mode():
        found: np.ndarray = model(torch.tensor([tokens])).logits[0].float().numpy()
        return found


def _architecture(name: str) -> Any:
    return next(arch for arch, text in gguf.MODEL_ARCH_NAMES.items() if text == name)


def _metadata(config: Any, tiny: TinyModel) -> dict[str, Any]:
    """What the converter writes for every decoder, and what this family adds."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        **tiny.metadata,
    }


def _stacked(state: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors with the matrices of experts as one, as the converter writes them."""
    stacks: dict[str, list[tuple[int, np.ndarray]]] = {}
    for name, values in state.items():
        if match := re.search(r"(.*\.experts\.)(\d+)\.(.*)", name):
            stacks.setdefault(match[1] + match[3], []).append((int(match[2]), values))
        else:
            yield name, values
    for name, parts in stacks.items():
        yield name, np.stack([values for _, values in sorted(parts, key=lambda part: part[0])])
