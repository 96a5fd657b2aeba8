"""In which form the kernels hold each stored format, and how a tensor gets there.

The kernels unpack some formats by themselves (`pack.cpp`). The others are unpacked here, some rows at a
time, so that a matrix is never held twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.base import Bytes
from pentad.execution.formats.scaled import block_scales, block_zeros
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.native.structs import FORMATS, PACKED_BITS
from pentad.execution.quant import dequantize_rows, stored_bytes
from pentad.execution.weights import StoredTensor, TensorFormat

_CHUNK_ELEMENTS: Final = 1 << 22
"""Numbers that are unpacked at a time."""
GROUP_ROWS: Final = 16
"""Rows that the kernels keep together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeForm:
    """How the kernels hold a format."""

    given: str
    """The format in which `pentad_pack` gets it (structs.FORMATS)."""
    rewrite: Callable[[Bytes], Bytes] | None = None
    """Blocks [n, bytes] to those of the given format with the same codes; None: from numbers in float32."""

    @property
    def code(self) -> int:
        """Its number for the functions of native.h."""
        return FORMATS[self.given]

    @property
    def bits(self) -> float:
        """Of a weight once packed, scales and minima included."""
        return PACKED_BITS[self.given]


def _half(numbers: npt.NDArray[np.float32]) -> Bytes:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(numbers.astype(np.float16)).view(np.uint8)


def _scale_in_half(blocks: Bytes) -> Bytes:
    """Blocks of a float32 scale and codes, as the kernels keep scales: in fp16."""
    return np.concatenate((_half(block_scales(blocks)), blocks[:, 4:]), axis=1)


def _with_minimum(blocks: Bytes) -> Bytes:
    """Of codes with a zero point: scale, minimum, codes."""
    scale = block_scales(blocks)
    return np.concatenate((_half(scale), _half(-scale * block_zeros(blocks)), blocks[:, 8:]), axis=1)


def _codes_behind(at: int) -> Callable[[Bytes], Bytes]:
    """8-bit codes from that byte on, behind a scale in fp16."""
    return lambda blocks: np.concatenate((blocks[:, :2], blocks[:, at:]), axis=1)


def _q8_k(blocks: Bytes) -> Bytes:
    """Blocks of 256 with one scale as eight of 32."""
    codes = blocks[:, 4:260].reshape(-1, 32)
    return np.concatenate((np.repeat(_half(block_scales(blocks)), 8, axis=0), codes), axis=1)


FORMS: Final[Mapping[TensorFormat, NativeForm]] = MappingProxyType(
    {name: NativeForm(given=name if name in FORMATS else "F32") for name in GEOMETRY}
    | {
        "Q8_1": NativeForm(given="Q8_0", rewrite=_codes_behind(4)),
        "Q8_K": NativeForm(given="Q8_0", rewrite=_q8_k),
        "INT4": NativeForm(given="Q4_0", rewrite=_scale_in_half),
        "UINT4": NativeForm(given="Q4_1", rewrite=_with_minimum),
        "INT8": NativeForm(given="Q8_0", rewrite=_scale_in_half),
    }
)
"""Stored format to its form. What has no codes that the kernels know gets 8-bit ones, a scale per 32."""


def given_rows(stored: StoredTensor, together: int = 1) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
    """The matrix as `pentad_pack` takes it, in parts: first row, how many, and their bytes.

    Args:
        together: rows that must be packed in one call, beside the groups of the kernels.

    Raises:
        BadModelFile: data that are not as long as format and shape say.
    """
    stored, (rows, columns) = stored.held(), stored.shape
    form = FORMS[stored.format]
    if form.given == stored.format:
        yield 0, rows, np.ascontiguousarray(stored.data)
        return
    step = int(np.lcm(GROUP_ROWS, together))
    step *= max(1, _CHUNK_ELEMENTS // (step * columns))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        yield start, stop - start, _given(form, stored, start, stop)


def _given(form: NativeForm, stored: StoredTensor, start: int, stop: int) -> npt.NDArray[np.uint8]:
    if form.rewrite is None:
        return dequantize_rows(stored, start, stop).reshape(-1).view(np.uint8)
    row_bytes = stored_bytes(stored.format, stored.shape[1:])
    part = stored.data.reshape(-1)[start * row_bytes : stop * row_bytes]
    return np.ascontiguousarray(form.rewrite(part.reshape(-1, GEOMETRY[stored.format].bytes))).reshape(-1)


def given_whole(stored: StoredTensor) -> npt.NDArray[np.uint8]:
    """The matrix as the kernels take it, in one part. Raises as `given_rows` does."""
    return np.concatenate([data for _, _, data in given_rows(stored)])
