"""Quantized safetensors: every method's matrices equal its published formula, written out here again.

The tensors are packed here number by number, in the order that each method's own packer has.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import model_fixtures as make
from pentad.errors import BadModelFile
from pentad.execution.native.forms import FORMS, given_whole
from pentad.execution.quant import dequantize
from pentad.model.files.fields import Fields
from pentad.model.files.quantized.container import METHODS, opened
from pentad.model.files.safetensors import SafetensorsFolder
from pentad.model.files.stored_as import stored_as
from pentad.model.loading import open_model

ROWS, COLUMNS, GROUP = 64, 128, 64
RNG = np.random.default_rng(3)
Arrays = dict[str, tuple[str, np.ndarray]]
Built = tuple[Arrays, dict[str, Any], np.ndarray]
"""Tensors by name with their types, options of the method, and the matrix that they make up."""


def bits_of(array: np.ndarray, kind: str) -> np.ndarray:
    """Numbers as the elements of a type that numpy lacks."""
    types = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    tensor = torch.from_numpy(array).to(types[kind])
    return tensor.view(torch.uint16 if kind == "BF16" else torch.uint8).numpy()


def write(folder: pathlib.Path, arrays: Arrays) -> SafetensorsFolder:
    entries, data = {}, b""
    for name, (kind, array) in arrays.items():
        end = len(data) + array.nbytes
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += np.ascontiguousarray(array).tobytes()
    (folder / "model.safetensors").write_bytes(make.safetensors(entries, data))
    return SafetensorsFolder(folder)


def config(method: str, **options: Any) -> Fields:
    return Fields(source="config.json", values={"quantization_config": {"quant_method": method, **options}})


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes along the first axis as a stream of bits in words of 32, the lowest first."""
    words = np.zeros((codes.shape[0] * bits // 32, codes.shape[1]), np.uint32)
    for column in range(codes.shape[1]):
        stream = 0
        for i, code in enumerate(codes[:, column].tolist()):
            stream |= code << (i * bits)
        for i in range(len(words)):
            words[i, column] = stream >> (32 * i) & 0xFFFFFFFF
    return words.view(np.int32)


def halves(*shape: int) -> np.ndarray:
    return (RNG.uniform(0.5, 2, shape) / 100).astype(np.float16)


def gptq(bits: int, sym: bool, order: bool = False, v2: bool = False) -> Built:
    codes = RNG.integers(0, 1 << bits, (COLUMNS, ROWS))
    groups = COLUMNS // GROUP
    zeros = np.full((groups, ROWS), 1 << (bits - 1)) if sym else RNG.integers(1, 1 << bits, (groups, ROWS))
    scales = halves(groups, ROWS)
    group_of = RNG.permutation(COLUMNS) // GROUP if order else np.arange(COLUMNS) // GROUP
    arrays: Arrays = {
        "a.qweight": ("I32", packed(codes, bits)),
        "a.qzeros": ("I32", np.ascontiguousarray(packed((zeros - (0 if v2 else 1)).T, bits).T)),
        "a.scales": ("F16", scales),
        "a.g_idx": ("I32", group_of.astype(np.int32)),
    }
    expected = (codes - zeros[group_of]).astype(np.float32) * scales[group_of].astype(np.float32)
    options = {"bits": bits, "group_size": GROUP, "desc_act": order, "sym": sym}
    return arrays, options | ({"checkpoint_format": "gptq_v2"} if v2 else {}), expected.T


def awq() -> Built:
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def words(codes: np.ndarray) -> np.ndarray:
        found = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
        for column in range(found.shape[1]):
            for i in range(8):
                found[:, column] |= codes[:, column * 8 + order[i]].astype(np.uint32) << np.uint32(4 * i)
        return found.view(np.int32)

    codes = RNG.integers(0, 16, (COLUMNS, ROWS))
    zeros, scales = RNG.integers(0, 16, (COLUMNS // GROUP, ROWS)), halves(COLUMNS // GROUP, ROWS)
    group_of = np.arange(COLUMNS) // GROUP
    expected = (codes - zeros[group_of]).astype(np.float32) * scales[group_of].astype(np.float32)
    arrays: Arrays = {
        "a.qweight": ("I32", words(codes)),
        "a.qzeros": ("I32", words(zeros)),
        "a.scales": ("F16", scales),
    }
    return arrays, {"bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}, expected.T


def compressed(bits: int, sym: bool, group: int | None = GROUP) -> Built:
    middle = 1 << (bits - 1)
    codes, groups = RNG.integers(-middle, middle, (ROWS, COLUMNS)), 1 if group is None else COLUMNS // group
    scales = halves(ROWS, groups).astype(np.float32)
    kept = bits_of(scales, "BF16")
    scales = (kept.astype(np.uint32) << 16).view(np.float32)
    zeros = np.zeros((ROWS, groups), int) if sym else RNG.integers(-middle, middle, (ROWS, groups))
    arrays: Arrays = {
        "a.weight_packed": ("I32", np.ascontiguousarray(packed((codes + middle).T, bits).T)),
        "a.weight_scale": ("BF16", kept),
        "a.weight_shape": ("I64", np.array([ROWS, COLUMNS])),
    }
    if not sym:
        arrays["a.weight_zero_point"] = ("I32", packed(zeros + middle, bits))
    group_of = np.arange(COLUMNS) * groups // COLUMNS
    weights = {"num_bits": bits, "type": "int", "symmetric": sym, "strategy": "group", "group_size": group}
    options = {"format": "pack-quantized", "config_groups": {"group_0": {"weights": weights}}}
    return arrays, options, (codes - zeros[:, group_of]).astype(np.float32) * scales[:, group_of]


def floats8(kind: str, scales: np.ndarray, name: str, **options: Any) -> Built:
    codes = RNG.integers(0, 256, (ROWS, COLUMNS), np.uint8)
    codes[codes & 0x7C == 0x7C] = 3  # no infinities or NaN
    as_torch = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}[kind]
    numbers = torch.from_numpy(codes).view(as_torch).float().numpy()
    whole = np.broadcast_to(scales.reshape(-1, 1), (ROWS, COLUMNS)) if scales.ndim < 2 else None
    if whole is None:
        whole = np.array([[scales[r // 32, c // 64] for c in range(COLUMNS)] for r in range(ROWS)])
    arrays: Arrays = {"a.weight": (kind, codes), f"a.{name}": ("F32", scales)}
    return arrays, options, (numbers * whole).astype(np.float32)


def scales32(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape).astype(np.float32) / 100


def nf4(nested: bool) -> Built:
    levels = np.array(
        # Published in the paper's appendix to seven places, in the package as these float32 numbers.
        (
            *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
            *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
            *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
            *(0.7229568362236023, 1.0),
        ),
        np.float32,
    )
    size, inner = 64, 16
    codes, count = RNG.integers(0, 16, ROWS * COLUMNS), ROWS * COLUMNS // size
    state: dict[str, Any] = {
        "quant_type": "nf4",
        "blocksize": size,
        "shape": [ROWS, COLUMNS],
        "dtype": "bfloat16",
    }
    arrays: Arrays = {
        "a.weight": ("U8", (codes[::2] << 4 | codes[1::2]).astype(np.uint8)[:, None]),
        "a.weight.quant_map": ("F32", levels),
    }
    if nested:
        absmax = RNG.integers(0, 256, count, np.uint8)
        table, outer = np.linspace(-1, 1, 256).astype(np.float32), scales32(count // inner)
        arrays |= {
            "a.weight.absmax": ("U8", absmax),
            "a.weight.nested_absmax": ("F32", outer),
            "a.weight.nested_quant_map": ("F32", table),
        }
        state |= {"nested_blocksize": inner, "nested_dtype": "float32", "nested_offset": 0.03}
        scale = np.array([table[absmax[i]] * outer[i // inner] + np.float32(0.03) for i in range(count)])
    else:
        scale = scales32(count)
        arrays["a.weight.absmax"] = ("F32", scale)
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    arrays["a.weight.quant_state.bitsandbytes__nf4"] = ("U8", text)
    expected = levels[codes] * scale[np.arange(ROWS * COLUMNS) // size]
    return arrays, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, expected.reshape(ROWS, COLUMNS)


def rows8(name: str) -> Built:
    codes, scales = RNG.integers(-127, 128, (ROWS, COLUMNS)).astype(np.int8), scales32(ROWS)
    if name == "SCB":
        expected = codes.astype(np.float32) * (scales / np.float32(127))[:, None]
        return {"a.weight": ("I8", codes), "a.SCB": ("F32", scales)}, {"load_in_8bit": True}, expected
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    options = {"format": "int-quantized", "config_groups": {"group_0": {"weights": weights}}}
    arrays: Arrays = {"a.weight": ("I8", codes), "a.weight_scale": ("F32", scales[:, None])}
    return arrays, options, codes.astype(np.float32) * scales[:, None]


FLOAT8_WEIGHTS = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor"}
FLOAT8 = {"format": "float-quantized", "config_groups": {"group_0": {"weights": FLOAT8_WEIGHTS}}}
Case = tuple[str, Callable[[], Built], str]
FP8_ROW = pytest.mark.row("cost-fp8", "mechanism")
CASES: Mapping[str, Case] = {
    **{
        f"gptq {b}-bit": ("gptq", lambda b=b: gptq(b, False), "F32" if b == 8 else "UINT4")
        for b in (2, 3, 4, 8)
    },
    "gptq symmetric": ("gptq", lambda: gptq(4, True), "INT4"),
    "gptq symmetric 8-bit": ("gptq", lambda: gptq(8, True), "INT8"),
    "gptq with inputs in any order": ("gptq", lambda: gptq(4, True, order=True), "F32"),
    "gptq v2": ("gptq", lambda: gptq(4, False, v2=True), "UINT4"),
    "awq": ("awq", awq, "UINT4"),
    "compressed int4": ("compressed-tensors", lambda: compressed(4, True), "INT4"),
    "compressed int4, zero points": ("compressed-tensors", lambda: compressed(4, False), "UINT4"),
    "compressed int4 by rows": ("compressed-tensors", lambda: compressed(4, True, None), "INT4"),
    "compressed int4, groups of 16": ("compressed-tensors", lambda: compressed(4, True, 16), "F32"),
    "compressed int8": ("compressed-tensors", lambda: compressed(8, True), "INT8"),
    "compressed int8 unpacked": ("compressed-tensors", lambda: rows8("weight_scale"), "INT8"),
    "compressed fp8": (
        "compressed-tensors",
        lambda: floats8("F8_E4M3", scales32(1), "weight_scale", **FLOAT8),
        "FP8",
    ),
    "fp8 blocks": (
        "fp8",
        lambda: floats8("F8_E4M3", scales32(2, 2), "weight_scale_inv", weight_block_size=[32, 64]),
        "FP8",
    ),
    "fp8 by tensor": ("fp8", lambda: floats8("F8_E4M3", scales32(1), "weight_scale"), "FP8"),
    "fp8 by rows": ("fbgemm_fp8", lambda: floats8("F8_E4M3", scales32(ROWS), "weight_scale"), "FP8"),
    "fp8 e5m2": ("fp8", lambda: floats8("F8_E5M2", scales32(1), "weight_scale"), "F32"),
    "nf4": ("bitsandbytes", lambda: nf4(False), "NF4"),
    "nf4, scales quantized": ("bitsandbytes", lambda: nf4(True), "NF4"),
    "int8 of bitsandbytes": ("bitsandbytes", lambda: rows8("SCB"), "INT8"),
}


@FP8_ROW
@pytest.mark.parametrize("case", CASES)
def test_numbers_equal_the_published_formula(case: str, tmp_path: pathlib.Path) -> None:
    method, build, format = CASES[case]
    arrays, options, expected = build()
    arrays["norm.weight"] = ("F32", np.ones(4, np.float32))
    container = opened(write(tmp_path, arrays), config(method, **options))
    assert set(container.tensors) == {"a.weight", "norm.weight"}
    assert container.tensors["a.weight"].shape == (ROWS, COLUMNS)
    tensor = container.tensor("a.weight")
    assert tensor.format == format
    assert len(tensor.origins) >= 2
    np.testing.assert_array_equal(dequantize(tensor), expected)
    assert dequantize(container.tensor("norm.weight")).tolist() == [1, 1, 1, 1]
    given = given_whole(tensor)
    assert given.size * 8 >= ROWS * COLUMNS * 4.5
    assert FORMS[tensor.format].given in ("Q4_0", "Q4_1", "Q8_0", "nf4", "F32")


def test_stacks_in_mxfp4_are_those_of_gguf_files_code_by_code(tmp_path: pathlib.Path) -> None:
    """The order of codes by transformers; whole and matrix by matrix."""
    codes = RNG.integers(0, 256, (3, ROWS, COLUMNS // 32, 16), np.uint8)
    scales = RNG.integers(0, 250, codes.shape[:-1], np.uint8)
    arrays: Arrays = {"x.proj_blocks": ("U8", codes), "x.proj_scales": ("U8", scales)}
    container = opened(write(tmp_path, arrays), config("mxfp4", modules_to_not_convert=["lm_head"]))
    tensor = container.tensor("x.proj.weight")
    assert set(container.tensors) == {"x.proj.weight"}
    assert (tensor.format, tensor.shape) == ("MXFP4", (3, ROWS, COLUMNS))
    expected = convert_moe_packed_tensors(
        torch.from_numpy(codes), torch.from_numpy(scales), dtype=torch.float32
    ).transpose(1, 2)
    np.testing.assert_array_equal(dequantize(tensor), expected.numpy())
    for part, one in zip(tensor.slices(), expected.numpy(), strict=True):
        np.testing.assert_array_equal(dequantize(part), one)
    arrays["x.proj_scales"] = ("U8", scales[:, :1])
    with pytest.raises(BadModelFile, match=r"'x\.proj_scales' has shape"):
        opened(write(tmp_path, arrays), config("mxfp4"))


def test_two_files_of_a_matrix_are_one(tmp_path: pathlib.Path) -> None:
    arrays, options, expected = gptq(4, True)
    for file, names in {"x": ["a.qweight", "a.g_idx"], "y": ["a.qzeros", "a.scales"]}.items():
        write(tmp_path, {name: arrays[name] for name in names})
        (tmp_path / "model.safetensors").rename(tmp_path / f"{file}.safetensors")
    where = {"a.qweight": "x", "a.g_idx": "x", "a.qzeros": "y", "a.scales": "y"}
    index = {"weight_map": {name: f"{file}.safetensors" for name, file in where.items()}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    container = opened(SafetensorsFolder(tmp_path), config("gptq", **options))
    np.testing.assert_array_equal(dequantize(container.tensor("a.weight")), expected)


REFUSED: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "unknown": ("aqlm", {}, "quantized by 'aqlm', which is not read"),
    "no method": ("", {}, "quantized by '', which is not read"),
    "gptq of 5 bits": ("gptq", {"bits": 5}, "'bits' is 5, readable are 2, 3, 4, 8"),
    "gptq by module": ("gptq", {"bits": 4, "dynamic": {"a": {}}}, "'dynamic' gives modules options"),
    "gptq for marlin": ("gptq", {"bits": 4, "checkpoint_format": "marlin"}, "is 'marlin', readable are"),
    "awq gemv": ("awq", {"bits": 4, "version": "gemv"}, "is 'gemv', readable is gemm"),
    "fp4": ("bitsandbytes", {"bnb_4bit_quant_type": "fp4"}, "is 'fp4', readable is nf4"),
    "sparse": (
        "compressed-tensors",
        {"format": "marlin-24", "config_groups": {"g": {"weights": {"num_bits": 4}}}},
        "'format' is 'marlin-24' with int4",
    ),
    "two ways": (
        "compressed-tensors",
        {
            "format": "x",
            "config_groups": {"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}},
        },
        "has 2 ways for weights",
    ),
    "block of one size": ("fp8", {"weight_block_size": [128]}, "must be two sizes"),
    "bits that are text": ("gptq", {"bits": "4"}, "'bits' is '4', must be an integer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(case: str, tmp_path: pathlib.Path) -> None:
    method, options, reason = REFUSED[case]
    folder = write(tmp_path, {"a.weight": ("F32", np.ones((1, 1), np.float32))})
    with pytest.raises(BadModelFile) as caught:
        opened(folder, config(method, **options))
    assert reason in str(caught.value)
    if case == "unknown":
        assert all(name in str(caught.value.hint) for name in METHODS)


@pytest.mark.parametrize("case", CASES)
def test_members_that_do_not_fit_are_named(case: str, tmp_path: pathlib.Path) -> None:
    """Each tensor is left out, and given another type and shape: a matrix comes out, or an error by name."""
    method, build, _ = CASES[case]
    arrays, options, _ = build()
    refused = 0
    for lost in arrays:
        left = {name: array for name, array in arrays.items() if name != lost}
        for changed in (left, left | {lost: ("F32", np.ones((3, 5, 7), np.float32))}):
            reason = refusal(
                lambda changed=changed: read(write(tmp_path, changed), config(method, **options))
            )
            refused += reason is not None
            assert reason is None or "'a" in reason
    assert refused >= len(arrays) - 1


def read(folder: SafetensorsFolder, about: Fields) -> None:
    container = opened(folder, about)
    for name in container.tensors:
        dequantize(container.tensor(name))


def refusal(attempt: Callable[[], None]) -> str | None:
    """Why it was refused; any error but BadModelFile is the test's failure."""
    try:
        attempt()
    except BadModelFile as error:
        return str(error)
    return None


def test_a_config_that_lies_about_zero_points_is_noticed(tmp_path: pathlib.Path) -> None:
    arrays, options, _ = gptq(4, False)
    container = opened(write(tmp_path, arrays), config("gptq", **options | {"sym": True}))
    with pytest.raises(BadModelFile, match='has zero points, though the config says "sym": true'):
        dequantize(container.tensor("a.weight"))


def test_groups_out_of_range_are_refused(tmp_path: pathlib.Path) -> None:
    arrays, options, _ = gptq(4, True)
    arrays["a.g_idx"] = ("I32", np.full(COLUMNS, 2, np.int32))
    with pytest.raises(BadModelFile, match="names groups from 2 to 2, there are 2"):
        opened(write(tmp_path, arrays), config("gptq", **options))


def test_a_quantized_folder_is_a_model(tmp_path: pathlib.Path) -> None:
    """Projections in 8 bits by rows, all else as it was: the model's weights are the formula's."""
    plain = make.tensors(make.llama_folder_shapes())
    arrays: Arrays = {}
    expected = {}
    for name, array in plain.items():
        if not name.endswith("proj.weight"):
            arrays[name] = ("F32", array)
            continue
        codes = RNG.integers(-127, 128, array.shape).astype(np.int8)
        scale = scales32(len(array))
        arrays |= {name: ("I8", codes), name.replace(".weight", ".SCB"): ("F32", scale)}
        expected[name] = codes.astype(np.float32) * (scale / np.float32(127))[:, None]
    options = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    folder = make.write_llama_folder(tmp_path / "tiny", quantization_config=options)
    write(folder, arrays)
    files = open_model(folder)
    np.testing.assert_array_equal(
        dequantize(files.weights.tensor("layers.1.down")), expected["model.layers.1.mlp.down_proj.weight"]
    )
    np.testing.assert_array_equal(
        dequantize(files.weights.tensor("layers.0.q")), expected["model.layers.0.self_attn.q_proj.weight"]
    )
    files.close()


def test_a_model_tells_how_its_weights_are_stored(tmp_path: pathlib.Path) -> None:
    arrays, options, _ = gptq(4, True)
    arrays["b.weight"] = ("F16", np.zeros((ROWS, COLUMNS // 4), np.float16))
    container = opened(write(tmp_path, arrays), config("gptq", **options))
    assert stored_as(container) == "gptq 4-bit: INT4 80%, F16 20%"
    assert stored_as(SafetensorsFolder(tmp_path)) == "F16 65%, I32 35%"
