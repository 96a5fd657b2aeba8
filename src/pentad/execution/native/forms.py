"""In which form the kernels hold each stored format, and how a tensor gets there.

The kernels unpack some formats by themselves (`pack.cpp`). The others are unpacked here, some rows at a
time, so that a matrix is never held twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.table import GEOMETRY
from pentad.execution.native.structs import FORMATS, PACKED_BITS
from pentad.execution.quant import dequantize_rows
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

    @property
    def code(self) -> int:
        """Its number for the functions of native.h."""
        return FORMATS[self.given]

    @property
    def bits(self) -> float:
        """Of a weight once packed, scales and minima included."""
        return PACKED_BITS[self.given]


FORMS: Final[Mapping[TensorFormat, NativeForm]] = MappingProxyType(
    {name: NativeForm(given=name if name in FORMATS else "F32") for name in GEOMETRY}
)
"""Stored format to its form. What the kernels don't unpack becomes 8-bit codes with a scale per 32."""


def given_rows(stored: StoredTensor, together: int = 1) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
    """The matrix as `pentad_pack` takes it, in parts: first row, how many, and their bytes.

    Args:
        together: rows that must be packed in one call, beside the groups of the kernels.

    Raises:
        BadModelFile: data that are not as long as format and shape say.
    """
    stored, (rows, columns) = stored.held(), stored.shape
    if FORMS[stored.format].given == stored.format:
        yield 0, rows, np.ascontiguousarray(stored.data)
        return
    step = int(np.lcm(GROUP_ROWS, together))
    step *= max(1, _CHUNK_ELEMENTS // (step * columns))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        yield start, stop - start, dequantize_rows(stored, start, stop).reshape(-1).view(np.uint8)


def given_whole(stored: StoredTensor) -> npt.NDArray[np.uint8]:
    """The matrix as the kernels take it, in one part. Raises as `given_rows` does."""
    return np.concatenate([data for _, _, data in given_rows(stored)])
