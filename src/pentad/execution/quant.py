"""Stored tensor formats: their block geometry in bytes, and their exact values as float32.

A row of a matrix is cut into blocks of `elements` numbers; each block is stored in `bytes` bytes
and holds its own scales. Nothing here depends on the device that will use the numbers.

Source: the block layouts of ggml (`ggml-common.h`), which GGUF files use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from pentad.errors import BadModelFile
from pentad.execution.weights import StoredTensor, TensorFormat

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGeometry:
    """How many numbers a block holds and in how many bytes."""

    elements: int
    bytes: int


GEOMETRY: Mapping[TensorFormat, BlockGeometry] = MappingProxyType(
    {
        "F32": BlockGeometry(elements=1, bytes=4),
        "F16": BlockGeometry(elements=1, bytes=2),
        "BF16": BlockGeometry(elements=1, bytes=2),
        "Q4_0": BlockGeometry(elements=32, bytes=18),
        "Q4_1": BlockGeometry(elements=32, bytes=20),
        "Q5_0": BlockGeometry(elements=32, bytes=22),
        "Q5_1": BlockGeometry(elements=32, bytes=24),
        "Q8_0": BlockGeometry(elements=32, bytes=34),
        "Q4_K": BlockGeometry(elements=256, bytes=144),
        "Q5_K": BlockGeometry(elements=256, bytes=176),
        "Q6_K": BlockGeometry(elements=256, bytes=210),
    }
)


def stored_bytes(format: TensorFormat, shape: Sequence[int]) -> int:
    """Bytes that a tensor of this format and shape takes in a file, exactly.

    Raises:
        BadModelFile: a negative dimension, or rows that no whole number of blocks fills.
    """
    if format not in GEOMETRY:
        raise BadModelFile(f"tensor format {format!r} is not read", hint=f"known: {', '.join(GEOMETRY)}")
    geometry = GEOMETRY[format]
    if any(size < 0 for size in shape):
        raise BadModelFile(f"tensor shape {tuple(shape)!r} has a negative dimension")
    row = shape[-1] if shape else 1
    if row % geometry.elements:
        raise BadModelFile(
            f"rows of {row} elements do not divide into {format} blocks of {geometry.elements}"
        )
    return math.prod(shape) // geometry.elements * geometry.bytes


def dequantize(tensor: StoredTensor) -> Floats:
    """All values of a tensor in float32, in its logical shape.

    Raises:
        BadModelFile: the data are not as long as format and shape say.
    """
    rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
    return dequantize_rows(tensor, 0, rows).reshape(tensor.shape)


def dequantize_rows(tensor: StoredTensor, start: int, stop: int) -> Floats:
    """Rows [start, stop) of the first dimension in float32, so that a large tensor needs no second copy.

    A tensor of one dimension is one row.

    Raises:
        BadModelFile: the data are not as long as format and shape say.
    """
    expected = stored_bytes(tensor.format, tensor.shape)
    data = tensor.data
    if data.size != expected:
        raise BadModelFile(
            f"tensor {tensor.name!r} has {data.size} bytes, {tensor.format} of shape "
            f"{tensor.shape} needs {expected}"
        )
    rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
    rest = tensor.shape[1:] if len(tensor.shape) > 1 else tensor.shape
    row_bytes = expected // rows if rows else 0
    part = data.reshape(-1)[start * row_bytes : stop * row_bytes]
    blocks = part.reshape(-1, GEOMETRY[tensor.format].bytes)
    return _DECODERS[tensor.format](blocks).reshape(stop - start, *rest)


def _half(blocks: Bytes, offset: int) -> Floats:
    """The fp16 scale at a byte offset of every block: [n, 1]."""
    scale: Floats = np.ascontiguousarray(blocks[:, offset : offset + 2]).view(np.float16).astype(np.float32)
    return scale


def _nibbles(codes: Bytes) -> Bytes:
    """Low halves first, then high halves: [n, b] to [n, 2b]."""
    return np.concatenate((codes & 15, codes >> 4), axis=1)


def _fifth_bits(blocks: Bytes, offset: int) -> Bytes:
    """Bit i of a 32-bit word per block, moved to value 16: [n, 32]."""
    bits = np.unpackbits(blocks[:, offset : offset + 4], axis=1, bitorder="little")
    return np.left_shift(bits, np.uint8(4))


def _f32(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view(np.float32).copy()


def _f16(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view(np.float16).astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    high = np.ascontiguousarray(blocks).view(np.uint16).astype(np.uint32)
    return np.left_shift(high, np.uint32(16)).view(np.float32)


def _affine(codes: npt.NDArray[np.uint8 | np.int8], scale: Floats, offset: Floats | None = None) -> Floats:
    """codes * scale + offset in float32, in one array."""
    values: Floats = codes.astype(np.float32)
    values *= scale
    if offset is not None:
        values += offset
    return values


def _q4_0(blocks: Bytes) -> Floats:
    return _affine(_nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8), _half(blocks, 0))


def _q4_1(blocks: Bytes) -> Floats:
    return _affine(_nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2))


def _q5_0(blocks: Bytes) -> Floats:
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)
    return _affine(codes.view(np.int8) - np.int8(16), _half(blocks, 0))


def _q5_1(blocks: Bytes) -> Floats:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return _affine(codes, _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Bytes) -> Floats:
    return _affine(blocks[:, 2:].view(np.int8), _half(blocks, 0))


def _scales_and_minima(packed: Bytes) -> tuple[Floats, Floats]:
    """Eight 6-bit scales and minima out of 12 bytes: two of [n, 8].

    byte   0..3                 4..7                 8..11
    bits   s4 high 2 | s0 low 6 m4 high 2 | m0 low 6 m4 low 4 | s4 low 4
    """
    a, b, c = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((a & 63, (c & 15) | ((a >> 2) & 48)), axis=1)
    minima = np.concatenate((b & 63, (c >> 4) | ((b >> 2) & 48)), axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k_blocks(blocks: Bytes, codes: Bytes) -> Floats:
    """Codes [n, 8, 32] of Q4_K or Q5_K with their two levels of scales."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scale = (_half(blocks, 0) * scales)[:, :, None]
    minimum = (_half(blocks, 2) * minima)[:, :, None]
    values: Floats = codes.astype(np.float32) * scale - minimum
    return values


def _paired_nibbles(codes: Bytes) -> Bytes:
    """Each 32 bytes hold 32 low halves, then 32 high halves: [n, 128] to [n, 8, 32]."""
    groups = codes.reshape(-1, 4, 1, 32)
    return np.concatenate((groups & 15, groups >> 4), axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes) -> Floats:
    return _k_blocks(blocks, _paired_nibbles(blocks[:, 16:]))


def _q5_k(blocks: Bytes) -> Floats:
    shifts = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    fifth = (blocks[:, 16:48].reshape(-1, 1, 32) >> shifts) & np.uint8(1)
    return _k_blocks(blocks, _paired_nibbles(blocks[:, 48:]) | np.left_shift(fifth, np.uint8(4)))


def _q6_k(blocks: Bytes) -> Floats:
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate((low & 15, low >> 4), axis=2).reshape(-1, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8).reshape(1, 1, 4, 1)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3
    codes = (low | (high << 4)).reshape(-1, 16, 16).astype(np.float32) - 32.0
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32) * _half(blocks, 208)
    return codes * scales[:, :, None]


_DECODERS: Mapping[TensorFormat, Callable[[Bytes], Floats]] = MappingProxyType(
    {
        "F32": _f32,
        "F16": _f16,
        "BF16": _bf16,
        "Q4_0": _q4_0,
        "Q4_1": _q4_1,
        "Q5_0": _q5_0,
        "Q5_1": _q5_1,
        "Q8_0": _q8_0,
        "Q4_K": _q4_k,
        "Q5_K": _q5_k,
        "Q6_K": _q6_k,
    }
)
