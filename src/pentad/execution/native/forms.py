"""In which form the kernels hold each stored format, and how a tensor gets there.

The kernels unpack some formats by themselves (`pack.cpp`). The others are unpacked here, some rows at a
time, so that a matrix is never held twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from pentad.execution.formats.base import Bytes, Codes
from pentad.execution.formats.scaled import block_scales, block_zeros, packed_nibbles
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.native.structs import FORMATS, PACKED_BITS
from pentad.execution.quant import dequantize_rows, stored_bytes
from pentad.execution.weights import StoredTensor, TensorFormat, WeightSource

_CHUNK_ELEMENTS: Final = 1 << 22
"""Numbers that are unpacked at a time."""
_ADDED: Final = frozenset({"positions", "token_types"})
"""Tables whose rows are added as they are: no product is taken with them."""
GROUP_ROWS: Final = 16
"""Rows that the kernels keep together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeForm:
    """How the kernels hold a format."""

    given: str
    """The format in which `pentad_pack` gets it (structs.FORMATS)."""
    rewrite: Callable[[Bytes], Bytes] | None = None
    """Blocks [n, bytes] to those of the given format, code for code; None: as they are, or from numbers."""
    error: float
    """Relative error of the packed weights (root of mean squares), measured on random ones: what products
    with them are off by, beside the rounding of activations. Held by a test."""

    @property
    def code(self) -> int:
        """Its number for the functions of native.h."""
        return FORMATS[self.given]

    @property
    def bits(self) -> float:
        """Of a weight once packed, scales and minima included."""
        return PACKED_BITS[self.given]

    @property
    def keeps_codes(self) -> bool:
        """Whether each code stays what it is, so that only scales are rounded, to fp16."""
        return self.rewrite is not None or self.given not in ("F32", "F16", "BF16")


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


def _q8_1(blocks: Bytes) -> Bytes:
    return np.concatenate((blocks[:, :2], blocks[:, 4:]), axis=1)


def _q8_k(blocks: Bytes) -> Bytes:
    """Blocks of 256 with one scale as eight of 32."""
    codes = blocks[:, 4:260].reshape(-1, 32)
    return np.concatenate((np.repeat(_half(block_scales(blocks)), 8, axis=0), codes), axis=1)


def _in_blocks(format: TensorFormat, blocks: Bytes) -> tuple[Bytes, Bytes]:
    """fp16 scales and codes of each 32 numbers of a format whose parts hold 32 or more."""
    decoded = GEOMETRY[format].decode(blocks)
    assert isinstance(decoded, Codes)
    codes = decoded.codes.reshape(-1, 32)
    scale = np.repeat(decoded.scale.reshape(-1), len(codes) // decoded.scale.size)
    return _half(scale.reshape(-1, 1)), codes.view(np.uint8)


def _eight_bits(format: TensorFormat) -> NativeForm:
    """Integers of up to 8 bits as they are."""
    return NativeForm(
        given="Q8_0", rewrite=lambda blocks: np.concatenate(_in_blocks(format, blocks), axis=1), error=_HALF
    )


def _ternary(format: TensorFormat) -> NativeForm:
    """-1, 0 and 1 as codes of 4 bits."""

    def rewrite(blocks: Bytes) -> Bytes:
        scale, codes = _in_blocks(format, blocks)
        return np.concatenate((scale, packed_nibbles(codes + np.uint8(8))), axis=1)

    return NativeForm(given="Q4_0", rewrite=rewrite, error=0.0)


def _rounded() -> NativeForm:
    return NativeForm(given="F32", error=_ROUNDED)


def _exact(format: TensorFormat, error: float) -> NativeForm:
    return NativeForm(given=format, error=error)


_ROUNDED: Final = 0.0075
"""Of what has no codes and gets 8-bit ones with a scale per 32."""
_HALF: Final = 0.0003
"""Of scales that are products, rounded to fp16."""

FORMS: Final[Mapping[TensorFormat, NativeForm]] = MappingProxyType(
    {
        "F32": _exact("F32", _ROUNDED),
        "F16": _exact("F16", _ROUNDED),
        "BF16": _exact("BF16", _ROUNDED),
        "Q4_0": _exact("Q4_0", 0.0),
        "Q4_1": _exact("Q4_1", 0.0),
        "Q5_0": _exact("Q5_0", 0.0),
        "Q5_1": _exact("Q5_1", 0.0),
        "Q8_0": _exact("Q8_0", 0.0),
        "Q8_1": NativeForm(given="Q8_0", rewrite=_q8_1, error=0.0),
        "Q2_K": _rounded(),
        "Q3_K": _rounded(),
        "Q4_K": _exact("Q4_K", 2 * _HALF),
        "Q5_K": _exact("Q5_K", 2 * _HALF),
        "Q6_K": _exact("Q6_K", _HALF),
        "Q8_K": NativeForm(given="Q8_0", rewrite=_q8_k, error=_HALF),
        "IQ1_S": _eight_bits("IQ1_S"),
        "IQ1_M": _rounded(),
        "IQ2_XXS": _eight_bits("IQ2_XXS"),
        "IQ2_XS": _rounded(),
        "IQ2_S": _rounded(),
        "IQ3_XXS": _eight_bits("IQ3_XXS"),
        "IQ3_S": _eight_bits("IQ3_S"),
        "IQ4_NL": dataclasses.replace(_eight_bits("IQ4_NL"), error=0.0),
        "IQ4_XS": _eight_bits("IQ4_XS"),
        "TQ1_0": _ternary("TQ1_0"),
        "TQ2_0": _ternary("TQ2_0"),
        "MXFP4": _exact("MXFP4", 0.0),
        "INT4": NativeForm(given="Q4_0", rewrite=_scale_in_half, error=_HALF),
        "UINT4": NativeForm(given="Q4_1", rewrite=_with_minimum, error=2 * _HALF),
        "INT8": NativeForm(given="Q8_0", rewrite=_scale_in_half, error=_HALF),
        "FP8": _rounded(),
        "NF4": _rounded(),
    }
)
"""Stored format to its form. Nothing takes more than 8.5 bits a weight."""


def forms_of(weights: WeightSource) -> dict[TensorFormat, NativeForm]:
    """Formats of a model's matrices to how the kernels hold each, for models that they compute."""
    tensors = map(weights.tensor, sorted(set(weights.names()) - _ADDED))
    return {tensor.format: FORMS[tensor.format] for tensor in tensors if len(tensor.shape) == 2}


def given_rows(stored: StoredTensor, together: int = 1) -> Iterator[tuple[int, int, npt.NDArray[np.uint8]]]:
    """The matrix as `pentad_pack` takes it, in parts: first row, how many, and their bytes.

    Args:
        together: rows that must be packed in one call, beside the groups of the kernels.

    Raises:
        BadModelFile: data that are not as long as format and shape say.
    """
    stored, (rows, columns) = stored.held(), stored.shape
    form = FORMS[stored.format]
    if form.given == stored.format and form.rewrite is None:
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
