"""Flan-T5-small out of its test model's ONNX graphs: a folder as `transformers` saves one, in float32."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import safetensors.numpy

from pentad.model.files import protobuf

_TYPES: Final = {1: "<f4", 2: "u1", 3: "i1", 7: "<i8"}
"""Of onnx.proto: float, uint8, int8, int64."""
_INITIALIZER, _NODE, _GRAPH = 5, 1, 7
CONFIG: Final[Mapping[str, Any]] = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "num_heads": 6,
    "num_layers": 8,
    "num_decoder_layers": 8,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "tie_word_embeddings": False,
    "vocab_size": 32128,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
"""As published; the graphs do not tell heads and buckets."""


def write_flan_folder(graphs: pathlib.Path, folder: pathlib.Path) -> None:
    """Weights of `encoder.onnx` and `decoder.onnx` times their scales, config and tokenizer.

    The graphs keep matrices in 8 bits and transposed, named after the operator that reads them.
    """
    weights: dict[str, np.ndarray] = {}
    for name, stack in (("encoder", "enc"), ("decoder", "m.decoder")):
        for key, values in _weights((graphs / f"{name}.onnx").read_bytes(), name):
            weights[key.replace(f"{stack}.", f"{name}.", 1)] = values
    weights["shared.weight"] = weights.pop("encoder.embed_tokens.weight")
    own = weights.pop("m.shared.weight")
    assert np.array_equal(own, weights["shared.weight"]), "encoder and decoder read the same embeddings"
    weights["lm_head.weight"] = weights.pop("m.lm_head.weight")
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(
        {key: np.ascontiguousarray(values, dtype=np.float32) for key, values in weights.items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(json.dumps(CONFIG))
    shutil.copy(graphs / "tokenizer.json", folder)


def _weights(data: bytes, source: str) -> Iterator[tuple[str, np.ndarray]]:
    """Names of PyTorch modules and float weights of one graph."""
    (graph,) = (one.data() for one in protobuf.fields(data, source) if one.number == _GRAPH)
    parts = [(one.number, one.data()) for one in protobuf.fields(graph, source) if one.number in (1, 5)]
    tensors = dict(_tensor(part, source) for number, part in parts if number == _INITIALIZER)
    readers = {
        read: output
        for number, part in parts
        if number == _NODE
        for inputs, output in [_node(part, source)]
        for read in inputs
    }
    for name, values in tensors.items():
        if name.endswith("norm.weight"):
            yield name, values
        elif name.endswith("_quantized"):
            stem = name.removesuffix("_quantized")
            floats = _floats(values, tensors[f"{stem}_scale"], tensors[f"{stem}_zero_point"])
            yield (stem, floats) if stem.endswith(".weight") else (_module(readers[name]), floats.T)


def _floats(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    found: np.ndarray = (codes.astype(np.float32) - np.float32(zero)) * scale
    return found


def _module(output: str) -> str:
    """The weight behind an operator's output, as `/enc/block.0/layer.0/SelfAttention/q/MatMul_...`."""
    if output.startswith("logits"):
        return "m.lm_head.weight"
    return re.sub(r"/MatMul_output.*", "", output).strip("/").replace("/", ".") + ".weight"


def _tensor(data: bytes, source: str) -> tuple[str, np.ndarray]:
    """A tensor's name and values; single numbers stand in lists of their own kind, others in raw bytes."""
    dims: list[int] = []
    kind, name, raw = 0, "", b""
    for one in protobuf.fields(data, source):
        match one.number:
            case 1:
                dims.append(one.integer())
            case 2:
                kind = one.integer()
            case 4:
                raw = one.data()
            case 5:
                raw = np.array(list(_varints(one.data())), _TYPES[kind]).tobytes()
            case 8:
                name = one.data().decode()
            case 9:
                raw = one.data()
    return name, np.frombuffer(raw, _TYPES.get(kind, "u1")).reshape(dims if kind in _TYPES else -1)


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value - (1 << 64) if value >= 1 << 63 else value
            value = shift = 0


def _node(data: bytes, source: str) -> tuple[list[str], str]:
    inputs, output = [], ""
    for one in protobuf.fields(data, source):
        if one.number == 1:
            inputs.append(one.data().decode())
        elif one.number == 2:
            output = output or one.data().decode()
    return inputs, output
