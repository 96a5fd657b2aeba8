"""Random models for the tests of the native kernels, in every stored format."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pentad.execution.formats.table import GEOMETRY
from pentad.execution.native.library import built, cpu_flags, usable
from pentad.execution.quant import dequantize
from pentad.execution.spec import ModelSpec, Norm, Rope
from pentad.execution.uniform import uniform_spec
from pentad.execution.weights import StoredTensor, TensorFormat, WeightSource

HERE = usable(cpu_flags(), built())
"""Instruction sets that this machine can run, the fastest first."""
ROW_BY_ROW = next((name for name in HERE if name != "amx"), "auto")
"""Kernels whose numbers for a token do not depend on how its text was cut or on what else is in the step, as
they do on AMX tiles (decision 10)."""

_STEPS: Mapping[str, tuple[int, float, float]] = {
    "Q4_0": (0, 1 / 4, 0),
    "Q4_1": (0, 1 / 4, 7.5),
    "Q5_0": (0, 1 / 8, 0),
    "Q5_1": (0, 1 / 8, 15.5),
    "Q8_0": (0, 1 / 64, 0),
    "Q4_K": (0, 1 / 128, 7.5),
    "Q5_K": (0, 1 / 256, 15.5),
    "Q6_K": (208, 1 / 1024, 0),
    "Q8_1": (0, 1 / 64, 0),
    "Q2_K": (80, 1 / 12, 1.5),
    "Q3_K": (108, 1 / 48, 0),
    "IQ1_S": (0, 1 / 8, 0),
    "IQ2_XXS": (0, 1 / 64, 0),
    "IQ2_XS": (0, 1 / 64, 0),
    "IQ2_S": (0, 1 / 64, 0),
    "IQ3_XXS": (0, 1 / 160, 0),
    "IQ3_S": (0, 1 / 160, 0),
    "IQ4_NL": (0, 1 / 64, 0),
    "IQ4_XS": (0, 1 / 1200, 0),
    "Q8_K": (0, 1 / 64, 0),
    "INT4": (0, 1 / 4, 0),
    "UINT4": (0, 1 / 4, 0),
    "INT8": (0, 1 / 64, 0),
    "NF4": (0, 2, 0),
    "FP8": (0, 1 / 128, 0),
    "TQ1_0": (52, 1, 0),
    "TQ2_0": (64, 1, 0),
}
"""Format to the byte offset of its fp16 step, a step that gives weights of about 1, and the mean code
where a minimum, in the next two bytes, has to bring the mean to 0."""


def stored(name: str, format: TensorFormat, shape: tuple[int, ...], rng: np.random.Generator) -> StoredTensor:
    """A random tensor whose values have a mean square of about 1 / columns."""
    spread = shape[-1] ** -0.5
    if format in ("F32", "F16", "BF16"):
        values = (rng.standard_normal(shape) * spread).astype(np.float32)
        data = {
            "F32": values.view(np.uint8),
            "F16": values.astype(np.float16).view(np.uint8),
            "BF16": (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8),
        }[format]
        return StoredTensor(name=name, format=format, shape=shape, data=data.reshape(-1))
    geometry = GEOMETRY[format]
    count = int(np.prod(shape)) // geometry.elements
    blocks = rng.integers(0, 256, (count, geometry.bytes), dtype=np.uint8)
    if format in ("Q8_K", "INT4", "UINT4", "INT8", "NF4", "FP8"):
        wide = (_STEPS[format][1] * spread * rng.uniform(0.5, 1.5, count)).astype(np.float32)
        blocks[:, :4] = wide.view(np.uint8).reshape(-1, 4)
        if format == "UINT4":
            blocks[:, 4:8] = rng.integers(5, 11, count, dtype=np.int32).view(np.uint8).reshape(-1, 4)
        if format == "FP8":
            blocks[:, 4:][blocks[:, 4:] & 127 == 127] = 0  # not a number
        return StoredTensor(name=name, format=format, shape=shape, data=blocks.reshape(-1))
    if format == "MXFP4":
        exponents = np.log2(spread / 6) + 128 + rng.integers(-1, 2, count)
        blocks[:, 0] = exponents.round().astype(np.uint8)
        return StoredTensor(name=name, format=format, shape=shape, data=blocks.reshape(-1))
    offset, step, middle = _STEPS.get(format, (0, 1 / 8, 0))
    steps = (step * spread * rng.uniform(0.5, 1.5, count)).astype(np.float16)
    if format == "IQ1_M":
        _spread_over_words(blocks[:, 48:], steps)
        return StoredTensor(name=name, format=format, shape=shape, data=blocks.reshape(-1))
    blocks[:, offset : offset + 2] = steps.view(np.uint8).reshape(count, 2)
    if middle:
        minima = (steps * (middle if format.endswith("_K") else -middle)).astype(np.float16)
        blocks[:, offset + 2 : offset + 4] = minima.view(np.uint8).reshape(count, 2)
    if format == "Q2_K":
        blocks[:, :16] = (blocks[:, :16] & 15) * 17
    if format == "TQ2_0":
        blocks[:, :64] &= 0b10101010  # no code has both bits
    if format in ("Q4_K", "Q5_K"):
        blocks[:, 4:16] = _equal_scales_and_minima(rng.integers(0, 64, (count, 8), dtype=np.uint8))
    return StoredTensor(name=name, format=format, shape=shape, data=blocks.reshape(-1))


def _spread_over_words(words: np.ndarray, steps: np.ndarray) -> None:
    """Writes the four nibbles of each fp16 number as the upper ones of four words of 16 bits."""
    for i in range(4):
        nibble = (steps.view(np.uint16) >> (4 * i) & 15).astype(np.uint8)
        words[:, 2 * i + 1] = words[:, 2 * i + 1] & 15 | nibble << 4


def _equal_scales_and_minima(values: np.ndarray) -> np.ndarray:
    """The twelve bytes of eight 6-bit scales [n, 8] whose minima are the same numbers."""
    low, high = values[:, :4], values[:, 4:]
    first = low | (high >> 4 << 6)
    return np.concatenate((first, first, (high & 15) | (high & 15) << 4), axis=1)


@dataclass(frozen=True)
class RandomWeights:
    """A WeightSource of tensors by canonical name."""

    tensors: Mapping[str, StoredTensor]

    def names(self) -> Iterable[str]:
        return self.tensors.keys()

    def tensor(self, name: str) -> StoredTensor:
        return self.tensors[name]


def random_weights(spec: ModelSpec, format: TensorFormat, seed: int = 0) -> RandomWeights:
    """Matrices in that format; norms around 1 and small biases in F32."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in spec.tensors().items():
        if len(shape) > 1 and not name.endswith(".bias"):
            exact = name.endswith((".router", ".shared_gate", ".conv"))
            tensors[name] = stored(name, "F32" if exact else format, shape, rng)
            continue
        values = rng.standard_normal(shape) * (0.3 if name.endswith("bias") else 0.1)
        values = (values + (0 if name.endswith("bias") else 1)).astype(np.float32)
        tensors[name] = StoredTensor(name=name, format="F32", shape=shape, data=values.view(np.uint8))
    return RandomWeights(tensors)


def tiny_spec(**changes: Any) -> ModelSpec:
    """Two layers of a SwiGLU decoder of a shape that every format can store."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "family": "llama",
        "vocab_size": 203,
        "layers": 2,
        "width": 256,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 64,
        "ffn_width": 512,
        "context_length": 512,
        "positions": Rope(dim=64),
        "norm": Norm(eps=1e-5),
        "tied_head": False,
    }
    return uniform_spec(**(settings | changes))


def rounded(source: WeightSource) -> RandomWeights:
    """A source's tensors in float32, matrices rounded to 8 bits in blocks of 32 as the kernels keep them;
    routers, which they keep whole, are not."""
    tensors = {}
    for name in source.names():
        values = dequantize(source.tensor(name)).astype(np.float32)
        if values.ndim > 1 and values.shape[-1] % 32 == 0 and not name.endswith((".router", ".bias")):
            blocks = values.reshape(-1, 32)
            steps = np.maximum(np.abs(blocks).max(axis=1, keepdims=True) / 127, np.float32(1e-30))
            values = (np.round(blocks / steps) * steps).reshape(values.shape)
        data = np.ascontiguousarray(values, np.float32)
        tensors[name] = StoredTensor(
            name=name, format="F32", shape=values.shape, data=data.view(np.uint8).reshape(-1)
        )
    return RandomWeights(tensors)


def divergence(reference: np.ndarray, found: np.ndarray) -> np.ndarray:
    """KL divergence of each row's distribution from the reference's, in nats."""
    p, q = _log_softmax(reference), _log_softmax(found)
    return np.sum(np.exp(p) * (p - q), axis=-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


@functools.lru_cache(maxsize=8)
def torch_runner(spec: ModelSpec, format: TensorFormat, seed: int = 0) -> Any:
    """The fp32 reference on the same random weights."""
    from pentad.execution.torch.runner import TorchRunner

    weights = random_weights(spec, format, seed)
    return TorchRunner.load(spec, weights, num_blocks=64, dtype="float32")
