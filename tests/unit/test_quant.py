"""Stored formats: sizes and values agree with the `gguf` package's own."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest

from pentad.errors import BadModelFile
from pentad.execution.formats.grids import grid
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.quant import dequantize, dequantize_rows, stored_bytes
from pentad.execution.weights import StoredTensor, TensorFormat

FORMATS: tuple[TensorFormat, ...] = tuple(
    name for name, format in GEOMETRY.items() if format.ggml is not None
)


def _random_blocks(format: TensorFormat, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random bytes: every bit pattern of codes and scales occurs, infinities and NaN among them."""
    return np.random.default_rng(seed).integers(0, 256, stored_bytes(format, shape), np.uint8)


def _reference(format: TensorFormat, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[format]
    if format in ("F32", "F16"):
        return data.view(np.float32 if format == "F32" else np.float16).astype(np.float32).reshape(shape)
    if format in ("Q8_1", "Q8_K"):
        return _eight_bits(format, data.tobytes()).reshape(shape)
    return gguf.quants.dequantize(data.reshape(shape[0], -1), kind).reshape(shape)


def _eight_bits(format: TensorFormat, data: bytes) -> np.ndarray:
    """Number by number, since the `gguf` package has no reader for these: codes behind a scale."""
    elements, size = GEOMETRY[format].elements, GEOMETRY[format].bytes
    code, at = ("<e", 4) if format == "Q8_1" else ("<f", 4)
    found = []
    for start in range(0, len(data), size):
        (scale,) = struct.unpack_from(code, data, start)
        codes = struct.unpack_from(f"{elements}b", data, start + at)
        found += [np.float32(scale) * np.float32(number) for number in codes]
    return np.array(found, np.float32)


@pytest.mark.parametrize("format", FORMATS)
def test_every_bit_equals_the_reference_on_random_blocks(format: TensorFormat) -> None:
    shape = (16, 1024)
    data = _random_blocks(format, shape)
    with np.errstate(all="ignore"):
        values = dequantize(StoredTensor(name="w", format=format, shape=shape, data=data))
        expected = np.ascontiguousarray(_reference(format, data, shape).astype(np.float32))
    assert values.dtype == np.float32
    assert values.shape == shape
    assert np.isfinite(expected).mean() > 0.8
    same = values.view(np.uint32) == expected.view(np.uint32)
    assert (same | (np.isnan(values) & np.isnan(expected))).all()


@pytest.mark.parametrize("format", ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"])
def test_grids_are_those_of_the_reference(format: str) -> None:
    reference = getattr(gguf.quants, format)
    reference.init_grid()
    np.testing.assert_array_equal(grid(format), reference.grid.reshape(reference.grid_shape))


def test_numbers_of_formats_are_those_of_files() -> None:
    for name in FORMATS:
        assert gguf.GGMLQuantizationType[name] == GEOMETRY[name].ggml


@pytest.mark.parametrize("format", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantized_numbers_come_back_within_their_step(format: TensorFormat) -> None:
    numbers = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    data = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[format]).reshape(-1)
    values = dequantize(StoredTensor(name="w", format=format, shape=(4, 64), data=data))
    step = {"4": 2 * 4 / 15, "5": 2 * 4 / 31, "8": 2 * 4 / 255}[format[1]]
    assert np.abs(values - numbers).max() < step


@pytest.mark.parametrize("format", FORMATS)
def test_rows_are_the_same_taken_in_parts(format: TensorFormat) -> None:
    tensor = StoredTensor(name="w", format=format, shape=(6, 256), data=_random_blocks(format, (6, 256)))
    with np.errstate(all="ignore"):
        parts = [dequantize_rows(tensor, start, start + 2) for start in (0, 2, 4)]
        np.testing.assert_array_equal(np.concatenate(parts), dequantize(tensor))


@pytest.mark.parametrize("format", FORMATS)
def test_geometry_is_that_of_the_reference(format: TensorFormat) -> None:
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format]]
    if format == "Q8_1":
        size -= 4  # the package tells of an older block whose two scales were float32; ggml's have fp16
    assert (GEOMETRY[format].elements, GEOMETRY[format].bytes) == (elements, size)
    assert stored_bytes(format, (3, 512)) == 3 * 512 // elements * size


def test_a_vector_keeps_its_shape() -> None:
    data = np.arange(8, dtype=np.float32)
    tensor = StoredTensor(name="norm", format="F32", shape=(8,), data=data.view(np.uint8))
    np.testing.assert_array_equal(dequantize(tensor), data)


def test_float32_values_do_not_alias_the_file() -> None:
    data = np.zeros(16, np.uint8)
    values = dequantize(StoredTensor(name="w", format="F32", shape=(2, 2), data=data))
    values += 1
    assert not data.any()


def test_rows_that_split_a_block_are_refused() -> None:
    with pytest.raises(BadModelFile, match="33 elements do not divide into Q8_0 blocks of 32"):
        stored_bytes("Q8_0", (2, 33))


def test_negative_dimensions_are_refused() -> None:
    with pytest.raises(BadModelFile, match="negative dimension"):
        stored_bytes("F32", (-1, 4))


def test_unknown_formats_are_refused_with_the_known_ones() -> None:
    with pytest.raises(BadModelFile, match="known: F32"):
        stored_bytes("Q9_9", (1, 256))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 33, 35, 68])
def test_data_of_another_length_than_declared_are_refused(size: int) -> None:
    tensor = StoredTensor(name="blk.0", format="Q8_0", shape=(1, 32), data=np.zeros(size, np.uint8))
    with pytest.raises(BadModelFile, match=f"'blk.0' has {size} bytes, Q8_0 of shape .* needs 34"):
        dequantize(tensor)
