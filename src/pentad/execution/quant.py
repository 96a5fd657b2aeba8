"""Stored tensors: their sizes in bytes, and their exact values as float32 (formats/ has each format)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pentad.errors import BadModelFile
from pentad.execution.formats.base import Floats
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.weights import StoredTensor, TensorFormat


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
    return GEOMETRY[tensor.format].decode(blocks).values().reshape(stop - start, *rest)
