"""Stored formats: sizes and values agree with the `gguf` package's own."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from pentad.errors import BadModelFile
from pentad.execution.quant import GEOMETRY, dequantize, dequantize_rows, stored_bytes
from pentad.execution.weights import StoredTensor, TensorFormat

FORMATS: tuple[TensorFormat, ...] = tuple(GEOMETRY)


def _random_blocks(format: TensorFormat, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random bytes whose fp16 scales are finite; every bit pattern of codes and sub-scales occurs."""
    rng = np.random.default_rng(seed)
    geometry = GEOMETRY[format]
    blocks = rng.integers(0, 256, (stored_bytes(format, shape) // geometry.bytes, geometry.bytes), np.uint8)
    scale = rng.normal(0, 0.1, (len(blocks), 2)).astype(np.float16).view(np.uint8).reshape(len(blocks), 4)
    if format in ("Q4_1", "Q5_1", "Q4_K", "Q5_K"):
        blocks[:, :4] = scale
    elif format == "Q6_K":
        blocks[:, 208:210] = scale[:, :2]
    elif format.startswith("Q"):
        blocks[:, :2] = scale[:, :2]
    elif format == "F32":
        blocks[:] = rng.normal(size=len(blocks)).astype(np.float32).view(np.uint8).reshape(-1, 4)
    elif format == "F16":
        blocks[:] = scale[:, :2]
    else:  # BF16: the high half of a float32
        blocks[:] = rng.normal(size=len(blocks)).astype(np.float32).view(np.uint8).reshape(-1, 4)[:, 2:]
    return blocks.reshape(-1)


def _reference(format: TensorFormat, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[format]
    if format in ("F32", "F16"):
        return data.view(np.float32 if format == "F32" else np.float16).astype(np.float32).reshape(shape)
    return gguf.quants.dequantize(data.reshape(shape[0], -1), kind).reshape(shape)


@pytest.mark.parametrize("format", FORMATS)
def test_values_equal_the_reference_on_random_blocks(format: TensorFormat) -> None:
    shape = (6, 512)
    data = _random_blocks(format, shape)
    values = dequantize(StoredTensor(name="w", format=format, shape=shape, data=data))
    assert values.dtype == np.float32
    assert values.shape == shape
    np.testing.assert_allclose(values, _reference(format, data, shape), rtol=1e-6, atol=1e-6)


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
    parts = [dequantize_rows(tensor, start, start + 2) for start in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), dequantize(tensor))


@pytest.mark.parametrize("format", FORMATS)
def test_geometry_is_that_of_the_reference(format: TensorFormat) -> None:
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format]]
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
        stored_bytes("IQ2_XXS", (1, 256))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 33, 35, 68])
def test_data_of_another_length_than_declared_are_refused(size: int) -> None:
    tensor = StoredTensor(name="blk.0", format="Q8_0", shape=(1, 32), data=np.zeros(size, np.uint8))
    with pytest.raises(BadModelFile, match=f"'blk.0' has {size} bytes, Q8_0 of shape .* needs 34"):
        dequantize(tensor)
