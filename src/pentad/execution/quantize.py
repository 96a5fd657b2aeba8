"""Values in float32 to stored blocks: plain round-to-nearest, the inverse of quant.py.

Source: the reference quantizers of ggml (`quantize_row_*_ref`): the same scales and the same
rounding, so that equal values give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from pentad.errors import Incompatible
from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.weights import StoredTensor, TensorFormat


def encode(name: str, values: Floats, format: TensorFormat) -> StoredTensor:
    """The tensor of these values in a format, each block scaled by itself.

    Args:
        values: float32 in the logical shape; blocks run along the last axis.

    Raises:
        Incompatible: a format that is only read, rows that no whole number of blocks fills, or
            values that are not finite or too large for the format's scales.
    """
    if format not in _ENCODERS:
        raise Incompatible(
            f"weights cannot be written as {format!r}", hint=f"choose one of {', '.join(_ENCODERS)}"
        )
    elements = GEOMETRY[format].elements
    if not values.size or values.shape[-1] % elements:
        raise Incompatible(
            f"tensor {name!r} of shape {values.shape} does not divide into {format} blocks of {elements}",
            hint="choose F16 or F32 for it",
        )
    if not np.isfinite(values).all():
        raise Incompatible(f"tensor {name!r} holds values that are not finite", hint="check its source")
    with np.errstate(over="ignore"):
        data = _ENCODERS[format](np.ascontiguousarray(values, dtype=np.float32).reshape(-1, elements))
    return StoredTensor(name=name, format=format, shape=values.shape, data=data.reshape(-1))


def writable() -> tuple[TensorFormat, ...]:
    """The formats that `encode` writes."""
    return tuple(_ENCODERS)


def fits(shape: tuple[int, ...], format: TensorFormat) -> bool:
    """Whether rows of this shape divide into the format's blocks."""
    return shape[-1] % GEOMETRY[format].elements == 0


def _f32(blocks: Floats) -> Bytes:
    return blocks.view(np.uint8)


def _f16(blocks: Floats) -> Bytes:
    return blocks.astype(np.float16).view(np.uint8)


def _bf16(blocks: Floats) -> Bytes:
    """To the nearest, ties to even, as hardware does it."""
    bits = blocks.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return rounded.astype(np.uint16).view(np.uint8)


def _inverse(scale: Floats) -> Floats:
    """One over it; 0 for scales so small that fp16 keeps them as 0 anyway."""
    found: Floats = np.divide(1.0, scale, out=np.zeros_like(scale), where=np.abs(scale) > 1e-30)
    return found


def _half(values: Floats) -> Bytes:
    return values.astype(np.float16).view(np.uint8)


def _q8_0(blocks: Floats) -> Bytes:
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scaled = blocks * _inverse(scale)
    codes = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)  # halves away from zero
    return np.concatenate((_half(scale), codes.view(np.uint8)), axis=1)


def _packed_nibbles(codes: Bytes) -> Bytes:
    half = codes.shape[1] // 2
    packed: Bytes = codes[:, :half] | np.left_shift(codes[:, half:], np.uint8(4))
    return packed


def _q4_0(blocks: Floats) -> Bytes:
    """The value of largest magnitude becomes code 0, so that its sign decides the scale's."""
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    scale = largest / np.float32(-8)
    codes = np.minimum(15, (blocks * _inverse(scale) + np.float32(8.5)).astype(np.int8)).astype(np.uint8)
    return np.concatenate((_half(scale), _packed_nibbles(codes)), axis=1)


def _q4_1(blocks: Floats) -> Bytes:
    low = blocks.min(axis=1, keepdims=True)
    scale = (blocks.max(axis=1, keepdims=True) - low) / np.float32(15)
    codes = np.minimum(15, ((blocks - low) * _inverse(scale) + np.float32(0.5)).astype(np.int8))
    return np.concatenate((_half(scale), _half(low), _packed_nibbles(codes.astype(np.uint8))), axis=1)


_ENCODERS: Mapping[TensorFormat, Callable[[Floats], Bytes]] = MappingProxyType(
    {"F32": _f32, "F16": _f16, "BF16": _bf16, "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1}
)
