"""Writing weights: blocks, GGUF and safetensors files, byte for byte as the reference writes them."""

from __future__ import annotations

import pathlib

import gguf
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_fixtures import tiny_llama_gguf
from pentad.errors import Incompatible
from pentad.execution.quant import dequantize
from pentad.execution.quantize import encode, writable
from pentad.execution.weights import StoredTensor
from pentad.model.files.gguf import GgufFile
from pentad.model.files.gguf_writer import GgufWriter, TensorHead, encode_value
from pentad.model.files.safetensors import SafetensorsFile
from pentad.model.files.safetensors_writer import write_safetensors

pytestmark = pytest.mark.thorough

floats = st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) > 1e-20 else 0.0)


@pytest.mark.parametrize("format", writable())
@given(values=arrays.arrays(np.float32, (3, 64), elements=floats))
def test_blocks_are_those_of_the_reference_quantizer(format: str, values: np.ndarray) -> None:
    got = encode("x", values, format)  # type: ignore[arg-type]
    with np.errstate(all="ignore"):
        wanted = gguf.quants.quantize(values, gguf.GGMLQuantizationType[format])
    assert got.data.tobytes() == wanted.tobytes()
    assert dequantize(got).shape == (3, 64)


@pytest.mark.parametrize("format", writable())
def test_the_smallest_numbers_are_written_as_nought(format: str) -> None:
    values = np.array([[0.0, 1e-40, -1e-38, 1.2e-38] * 8], np.float32)
    assert np.abs(dequantize(encode("x", values, format))).max() < 1e-37  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "format", "message"),
    [
        (np.zeros((2, 40), np.float32), "Q8_0", "does not divide into Q8_0 blocks of 32; choose F16 or F32"),
        (np.array([[np.nan] * 32], np.float32), "Q8_0", "not finite"),
        (np.zeros((2, 32), np.float32), "Q6_K", "choose one of F32, F16, BF16, Q8_0, Q4_0, Q4_1"),
        (np.zeros((0, 32), np.float32), "F16", "does not divide"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(values: np.ndarray, format: str, message: str) -> None:
    with pytest.raises(Incompatible, match=message):
        encode("x", values, format)  # type: ignore[arg-type]


def some() -> list[StoredTensor]:
    rng = np.random.default_rng(0)
    return [
        encode("a.weight", rng.normal(size=(4, 64)).astype(np.float32), "Q8_0"),
        encode("b.weight", rng.normal(size=(3,)).astype(np.float32), "F32"),
        encode("c.weight", rng.normal(size=(2, 2, 32)).astype(np.float32), "Q4_1"),
    ]


def heads(tensors: list[StoredTensor]) -> list[TensorHead]:
    return [TensorHead(name=t.name, format=t.format, shape=t.shape) for t in tensors]


def test_a_gguf_file_is_read_by_us_and_by_the_reference(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(tiny_llama_gguf())
    before = GgufFile(source)
    path = tmp_path / "new.gguf"
    pairs = before.raw_pairs() | {"llama.block_count": encode_value(7), "x.flag": encode_value(True)}
    with GgufWriter(path, pairs, heads(some())) as out:
        for tensor in some():
            out.put(tensor)
    after = GgufFile(path)
    assert dict(after.metadata)["llama.block_count"] == 7
    assert after.metadata["x.flag"] is True
    tokens = after.values(after.metadata["tokenizer.ggml.tokens"])
    assert tokens == before.values(before.metadata["tokenizer.ggml.tokens"])
    theirs = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for tensor in some():
        assert after.tensor(tensor.name).data.tobytes() == tensor.data.tobytes()
        assert theirs[tensor.name].data.tobytes() == tensor.data.tobytes()


@pytest.mark.parametrize("fault", ["early", "wrong", "raised"])
def test_an_unfinished_gguf_file_leaves_nothing(tmp_path: pathlib.Path, fault: str) -> None:
    def write(tensors: list[StoredTensor]) -> None:
        with GgufWriter(tmp_path / "x.gguf", {}, heads(tensors)) as out:
            out.put(tensors[0])
            if fault == "wrong":
                out.put(tensors[2])
            if fault == "raised":
                raise ValueError("something else")

    with pytest.raises(ValueError):
        write(some())
    assert list(tmp_path.iterdir()) == []


def test_a_safetensors_file_is_read_by_us_and_by_the_reference(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(1)
    tensors = [
        encode("a", rng.normal(size=(5, 3)).astype(np.float32), "F32"),
        encode("b", rng.normal(size=(7,)).astype(np.float32), "F16"),
    ]
    path = tmp_path / "m.safetensors"
    write_safetensors(path, heads(tensors), tensors)
    theirs, ours = safetensors.numpy.load_file(path), SafetensorsFile(path)
    for tensor in tensors:
        np.testing.assert_array_equal(theirs[tensor.name].astype(np.float32), dequantize(tensor))
        assert ours.tensor(tensor.name).data.tobytes() == tensor.data.tobytes()


def test_blocks_do_not_go_into_safetensors_and_nothing_is_left(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        Incompatible, match="Q8_0, which safetensors files do not hold; choose the format F32"
    ):
        write_safetensors(tmp_path / "m.safetensors", heads(some()), some())
    with pytest.raises(ValueError):
        write_safetensors(tmp_path / "m.safetensors", heads(some()[1:2]), [])
    assert list(tmp_path.iterdir()) == []
