"""Reading low-rank adapters: PEFT's folders of safetensors, and GGUF files as llama.cpp converts them."""

from __future__ import annotations

import hashlib
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from pentad.errors import BadModelFile, Incompatible
from pentad.execution.adapters import ADAPTED, Adapter, LowRank
from pentad.execution.quant import dequantize
from pentad.model.files.fields import Fields
from pentad.model.files.folder_files import read_json
from pentad.model.files.gguf import GgufFile
from pentad.model.files.safetensors import SafetensorsFile
from pentad.model.loading import ModelFiles

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PEFT: Final = re.compile(r"layers\.(\d+)\.(?:self_attn|mlp)\.(\w+?)_proj\.lora_(A|B)\.weight$")
_GGUF: Final = re.compile(r"blk\.(\d+)\.(\w+)\.weight\.lora_(a|b)$")
_GGUF_NAMES: Final = {
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
_LLAMA: Final = frozenset({"llama", "mistral"})
"""Families whose GGUF files hold queries and keys in another order than PEFT's adapters are trained in."""
_UNREAD: Final = {
    "use_dora": "DoRA scales whole matrices",
    "modules_to_save": "whole matrices are replaced",
    "alpha_pattern": "matrices have scales of their own",
    "fan_in_fan_out": "its matrices are transposed",
}


def open_adapter(path: str | pathlib.Path, *, name: str, base: ModelFiles) -> Adapter:
    """The adapter in a PEFT folder or a GGUF file, its pairs by the base's canonical names.

    Cost: its bytes are read once, for the digest and for the numbers.

    Raises:
        BadModelFile: it is damaged, of a kind that is not read, or does not fit the base.
        Incompatible: its rows lie in another order than the base's.
    """
    path = pathlib.Path(path).expanduser()
    gguf, _ = path.is_file(), _weights(path)
    if gguf and base.format != "gguf" and base.spec.family in _LLAMA:
        raise Incompatible(
            f"adapter {name!r} is a GGUF file, its base {base.name!r} is not: rows lie in another order",
            hint="take the adapter in PEFT's form, or the base as a GGUF file",
        )
    pairs = _from_gguf(path) if gguf else _from_peft(path)
    if not pairs:
        raise BadModelFile(f"adapter {str(path)!r} adds to none of {', '.join(ADAPTED)}")
    _check_shapes(pairs, base, str(path))
    moved = not gguf and base.format == "gguf" and base.spec.family in _LLAMA
    return Adapter(key=adapter_key(path, name), pairs=pairs, stored_order=not moved)


def adapter_key(path: str | pathlib.Path, name: str) -> str:
    """The key that `open_adapter` gives, from the file's bytes alone. Raises BadModelFile."""
    digest = hashlib.blake2b(_weights(path).read_bytes(), digest_size=8)  # fast without SHA instructions too
    return f"{name}@{digest.hexdigest()}"


def adapter_bytes(path: str | pathlib.Path) -> int:
    """What an adapter takes in memory, in float32. Reads no weights. Raises BadModelFile."""
    path = pathlib.Path(path).expanduser()
    file = GgufFile(path) if path.is_file() else SafetensorsFile(_weights(path))
    try:
        return sum(4 * math.prod(file.tensor(name).shape) for name in file.tensors)
    finally:
        file.close()


def _weights(path: str | pathlib.Path) -> pathlib.Path:
    """The file that holds the numbers."""
    path = pathlib.Path(path).expanduser()
    file = path if path.is_file() else path / WEIGHTS
    if not file.is_file():
        raise BadModelFile(
            f"{str(path)!r} is no adapter", hint=f"give a GGUF file, or a folder with {CONFIG} and {WEIGHTS}"
        )
    return file


def _from_peft(folder: pathlib.Path) -> dict[str, LowRank]:
    config = read_json(folder / CONFIG, required=True)
    if (kind := config.text("peft_type", "LORA")) != "LORA":
        raise BadModelFile(f"{config.source} is of peft_type {kind!r}", hint="LORA is read")
    for field, why in _UNREAD.items():
        if config.values.get(field):
            raise BadModelFile(f"{config.source} sets {field}: {why}, which is not read")
    if config.text("bias", "none") != "none":
        raise BadModelFile(f"{config.source} trains biases, which are not read")
    file = SafetensorsFile(folder / WEIGHTS)
    try:
        return _pairs(file, _peft_names(file), lambda rank, _: _peft_scale(config, rank))
    finally:
        file.close()


def _peft_names(file: SafetensorsFile) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name in file.tensors:
        match = _PEFT.search(name)
        if match is None or match[2] not in ADAPTED:
            raise BadModelFile(f"{str(file.path)!r} has the tensor {name!r}, to which nothing is added here")
        found.setdefault(f"layers.{match[1]}.{match[2]}", {})[match[3].lower()] = name
    return found


def _peft_scale(config: Fields, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) where `use_rslora` says so."""
    alpha = float(config.values.get("lora_alpha", rank))
    return alpha / (math.sqrt(rank) if config.flag("use_rslora", False) else rank)


def _from_gguf(path: pathlib.Path) -> dict[str, LowRank]:
    file = GgufFile(path)
    try:
        fields = Fields(source=str(path), values=file.metadata)
        if fields.text("general.type", "") != "adapter" or fields.text("adapter.type", "") != "lora":
            raise BadModelFile(f"{str(path)!r} is a GGUF file, but no LoRA adapter")
        names: dict[str, dict[str, str]] = {}
        for name in file.tensors:
            match = _GGUF.fullmatch(name)
            if match is None or match[2] not in _GGUF_NAMES:
                raise BadModelFile(f"{str(path)!r} has the tensor {name!r}, to which nothing is added here")
            names.setdefault(f"layers.{match[1]}.{_GGUF_NAMES[match[2]]}", {})[match[3]] = name
        alpha = float(file.metadata.get("adapter.lora.alpha", 0.0))
        return _pairs(file, names, lambda rank, _: alpha / rank if alpha else 1.0)
    finally:
        file.close()


def _pairs(
    file: SafetensorsFile | GgufFile,
    names: Mapping[str, Mapping[str, str]],
    scale: Callable[[int, str], float],
) -> dict[str, LowRank]:
    pairs: dict[str, LowRank] = {}
    for canonical, halves in names.items():
        if halves.keys() != {"a", "b"}:
            raise BadModelFile(f"adapter has one half of {canonical!r} only")
        down, up = (dequantize(file.tensor(halves[half])) for half in "ab")
        if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
            raise BadModelFile(f"adapter of {canonical!r}: {down.shape} and {up.shape} are no pair")
        pairs[canonical] = LowRank(down, up * np.float32(scale(down.shape[0], canonical)))
    return pairs


def _check_shapes(pairs: Mapping[str, LowRank], base: ModelFiles, source: str) -> None:
    """Raises BadModelFile for a pair that belongs to no matrix of the base, or to one of another size."""
    shapes = base.spec.tensors()
    for name, pair in pairs.items():
        found = (pair.up.shape[0], pair.down.shape[1])
        if shapes.get(name) != found:
            there = shapes.get(name, "not there")
            raise BadModelFile(
                f"{source!r} adds {found} to {name!r}, which is {there} in {base.name!r}",
                hint="take an adapter that was trained on this model",
            )
