"""How the kernels hold each stored format: the packed weights, read back here, are off by what is stated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from native_support import HERE, random_weights, stored, tiny_spec
from pentad.execution.native.forms import FORMS, NativeForm, given_rows
from pentad.execution.native.runner import NativeRunner
from pentad.execution.quant import dequantize
from pentad.execution.weights import TensorFormat

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

ROWS, COLUMNS = 32, 512
OFFSETS = {"Q4_0": 8, "Q5_0": 16, "Q6_K": 32, "MXFP4": 12}


def unpacked(packed: np.ndarray, form: NativeForm) -> np.ndarray:
    """The weights in the layout that pack.h draws: groups of 16 rows, blocks of 32 columns."""
    halves = form.given == "Q6_K"
    minima = form.given in ("Q4_1", "Q5_1", "Q4_K", "Q5_K")
    tail = 32 * (1 + halves) * (1 + minima)
    width = round((form.bits * 512 / 8 - tail) * 8 / 512)
    blocks = packed.reshape(ROWS // 16, COLUMNS // 32, 64 * width + tail)
    lines = blocks[..., : 64 * width].reshape(*blocks.shape[:2], width, 64)
    if width == 8:
        codes = lines.astype(int)
    else:
        low = lines[..., :4, :]
        codes = np.concatenate((low & 15, low >> 4), axis=2).astype(int)
        for bit in range(4, width):
            plane = lines[..., bit : bit + 1, :] >> np.arange(8, dtype=np.uint8)[:, None]
            codes |= (plane & 1).astype(int) << bit
    codes = codes.reshape(*blocks.shape[:2], 8, 16, 4).transpose(0, 3, 1, 2, 4).reshape(-1, 2, 16)
    numbers = codes - (128 if width == 8 else OFFSETS.get(form.given, 0))
    parts = np.ascontiguousarray(blocks[..., 64 * width :]).view(np.float16).astype(np.float64)
    parts = parts.reshape(*blocks.shape[:2], 1 + minima, 1 + halves, 16).transpose(0, 4, 1, 2, 3)
    parts = np.broadcast_to(parts, (*parts.shape[:4], 1 + halves)).reshape(-1, 1 + minima, 1 + halves, 1)
    return (numbers * parts[:, 0] + (parts[:, 1] if minima else 0)).reshape(ROWS, COLUMNS)


@pytest.fixture(scope="module")
def packer() -> Iterator[tuple[Any, int]]:
    """The kernels' functions and a model to pack for."""
    spec = tiny_spec(layers=1)
    runner = NativeRunner.load(spec, random_weights(spec, "Q8_0"), num_blocks=4, kernels=HERE[0], threads=1)
    yield runner._functions, runner._model
    runner.close()


@pytest.mark.parametrize("format", FORMS)
def test_packed_weights_are_off_by_what_is_stated(format: TensorFormat, packer: tuple[Any, int]) -> None:
    form = FORMS[format]
    tensor = stored("w", format, (ROWS, COLUMNS), np.random.default_rng(11))
    functions, model = packer
    packed = np.zeros(functions.pentad_packed_bytes(form.code, ROWS, COLUMNS), np.uint8)
    ((_, count, data),) = given_rows(tensor)
    address = data.ctypes.data, count, COLUMNS, 0, packed.ctypes.data
    assert not functions.pentad_pack(model, form.code, *address)
    expected = dequantize(tensor).astype(np.float64)
    off = np.sqrt(np.square(unpacked(packed, form) - expected).mean() / np.square(expected).mean())
    assert off <= form.error
    assert off > form.error / 8 or form.error == 0


def test_nothing_takes_more_than_eight_bits_and_a_scale() -> None:
    assert max(form.bits for form in FORMS.values()) == 8.5
    assert {format for format, form in FORMS.items() if not form.keeps_codes} == {
        *("F32", "F16", "BF16", "FP8", "NF4", "Q2_K", "Q3_K", "IQ1_M", "IQ2_XS", "IQ2_S")
    }
