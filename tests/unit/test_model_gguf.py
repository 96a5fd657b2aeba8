"""Our GGUF reader: equal to the reference reader on sound files, and unmoved by hostile ones."""

from __future__ import annotations

import os
import pathlib
import re
import struct
from typing import Any

import gguf as reference
import numpy as np
import pytest

import model_fixtures as make
from pentad.errors import BadModelFile
from pentad.model.files.gguf import GgufArray, GgufFile
from pentad.model.loading import open_model

HUGE = 1 << 63


def write(folder: pathlib.Path, data: bytes) -> pathlib.Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


def test_every_value_type_and_tensor_reads_as_the_reference_writer_wrote_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "all.gguf"
    writer = reference.GGUFWriter(path, "llama")
    scalars = {
        "uint8": 200, "int8": -7, "uint16": 60_000, "int16": -300, "uint32": 1 << 31, "int32": -5,
        "float32": 0.5, "bool": True, "string": "grüße 😀", "uint64": 1 << 60, "int64": -(1 << 60),
        "float64": 0.1,
    }  # fmt: skip
    for name, content in scalars.items():
        getattr(writer, f"add_{name}")(f"x.{name}", content)
    writer.add_array("x.strings", ["a", "", "ß"])
    writer.add_array("x.numbers", [1, 2, 3])
    writer.add_array("x.nested", [[1, 2], [3]])
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    halves = np.arange(6, dtype=np.float16)
    writer.add_tensor("matrix", matrix)
    writer.add_tensor("halves", halves)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    file = GgufFile(path)
    assert {key: file.metadata[f"x.{key}"] for key in scalars} == scalars
    assert file.values(file.metadata["x.strings"]) == ["a", "", "ß"]
    assert file.values(file.metadata["x.numbers"]) == [1, 2, 3]
    assert file.values(file.metadata["x.nested"]) == [[1, 2], [3]]
    assert file.tensor("matrix").shape == (3, 4)
    assert file.tensor("matrix").data.tobytes() == matrix.tobytes()
    assert (file.tensor("halves").format, file.tensor("halves").data.tobytes()) == ("F16", halves.tobytes())


def test_arrays_stay_undecoded_until_asked_for(tmp_path: pathlib.Path) -> None:
    file = GgufFile(write(tmp_path, make.gguf([make.pair("a", make.ARR, (make.STR, ["x"] * 100))])))
    assert isinstance(file.metadata["a"], GgufArray)
    assert file.metadata["a"].count == 100


def test_views_are_read_only_and_outlive_close(tmp_path: pathlib.Path) -> None:
    file = GgufFile(write(tmp_path, make.gguf([], [make.info("t", [8])], bytes(range(32)))))
    view = file.tensor("t").data
    file.close()
    assert view.tobytes() == bytes(range(32))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_version_2_is_read_like_version_3(tmp_path: pathlib.Path) -> None:
    file = GgufFile(write(tmp_path, make.gguf([make.pair("a", make.U32, 7)], version=2)))
    assert dict(file.metadata) == {"a": 7}


ONE = [make.info("t", [8])]
HOSTILE: dict[str, tuple[bytes, str]] = {
    "another magic": (b"GGML" + bytes(60), "starts with"),
    "no header": (b"GGUF", "version needs 4 bytes"),
    "version 1": (make.gguf(version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "2^63 tensors": (make.gguf(counts=(HUGE, 0)), "tensor count"),
    "2^63 pairs": (make.gguf(counts=(0, HUGE)), "metadata count"),
    "more pairs than bytes": (make.gguf([make.pair("a", make.U8, 1)], counts=(0, 9)), "metadata count"),
    "key of 2^63 bytes": (make.gguf([struct.pack("<Q", HUGE) + bytes(40)]), "length of metadata key"),
    "long key": (make.gguf([make.pair("k" * 70_000, make.U8, 1)]), "at most 65535"),
    "key that is no UTF-8": (make.gguf([make.text(b"\xff") + struct.pack("<IB", 0, 1)]), "not valid UTF-8"),
    "text that is no UTF-8": (make.gguf([make.pair("a", make.STR, b"\xc3(")]), "not valid UTF-8"),
    "duplicate key": (make.gguf([make.pair("a", make.U8, 1)] * 2), "'a' appears twice"),
    "unknown value type": (make.gguf([make.text("a") + struct.pack("<IQ", 99, 0)]), "unknown type 99"),
    "string past the end": (
        make.gguf([make.text("a") + struct.pack("<IQ", make.STR, HUGE) + bytes(9)]),
        "length of value of 'a'",
    ),
    "array of 2^63": (
        make.gguf([make.text("a") + struct.pack("<IIQ", make.ARR, make.U8, HUGE)]),
        "element count",
    ),
    "array of an unknown type": (
        make.gguf([make.text("a") + struct.pack("<IIQ", make.ARR, 77, 0)]),
        "unknown type 77",
    ),
    "array of strings cut off": (
        make.gguf([make.text("a") + struct.pack("<IIQQ", make.ARR, make.STR, 1, 1 << 40)]),
        "a string in value of 'a' is longer than what is left",
    ),
    "array that ends within a length": (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + make.text("a")
        + struct.pack("<IIQ", make.ARR, make.STR, 2)
        + make.text("four")
        + bytes(4),
        "longer than what is left",
    ),
    "arrays nested too deep": (
        make.gguf(
            [make.text("a") + struct.pack("<I", make.ARR) + struct.pack("<IQ", make.ARR, 1) * 6 + bytes(99)]
        ),
        "nests arrays deeper",
    ),
    "no dimensions": (make.gguf([], [make.info("t", [])], bytes(64)), "0 dimensions"),
    "too many dimensions": (make.gguf([], [make.info("t", [1] * 5)], bytes(64)), "5 dimensions"),
    "2^32 - 1 dimensions": (
        make.gguf([], [make.text("t") + struct.pack("<I", 0xFFFF_FFFF)], bytes(64)),
        "4294967295 dimensions",
    ),
    "zero dimension": (make.gguf([], [make.info("t", [8, 0])], bytes(64)), "impossible dimensions"),
    "negative dimension": (
        make.gguf([], [make.info("t", [(1 << 64) - 8])], bytes(64)),
        "impossible dimensions",
    ),
    "product overflow": (
        make.gguf([], [make.info("t", [1 << 62, 1 << 62, 1 << 62, 1 << 62])], bytes(64)),
        "would end at byte",
    ),
    "larger than the file": (make.gguf([], [make.info("t", [1 << 20])], bytes(64)), "would end at byte"),
    "offset past the file": (
        make.gguf([], [make.info("t", [8], 0, 1 << 40)], bytes(64)),
        "would end at byte",
    ),
    "offset that wraps": (make.gguf([], [make.info("t", [8], 0, (1 << 64) - 32)], bytes(64)), "would end at"),
    "misaligned offset": (make.gguf([], [make.info("t", [8], 0, 4)], bytes(64)), "no multiple of 32"),
    "unknown tensor type": (make.gguf([], [make.info("t", [8], 999)], bytes(64)), "ggml type 999"),
    "type we lack": (make.gguf([], [make.info("t", [256], 4)], bytes(128)), "readable are F32"),
    "row of part of a block": (make.gguf([], [make.info("t", [33], 8)], bytes(64)), "no multiple of Q8_0"),
    "duplicate tensor": (make.gguf([], ONE * 2, bytes(64)), "'t' appears twice"),
    "overlapping tensors": (
        make.gguf([], [make.info("a", [16]), make.info("b", [16], 0, 32)], bytes(96)),
        "'a' and 'b' overlap",
    ),
    "alignment 0": (make.gguf([make.pair("general.alignment", make.U32, 0)], ONE, bytes(64)), "alignment"),
    "alignment 24": (make.gguf([make.pair("general.alignment", make.U32, 24)], ONE, bytes(64)), "alignment"),
    "alignment text": (
        make.gguf([make.pair("general.alignment", make.STR, "x")], ONE, bytes(64)),
        "alignment",
    ),
}


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_file_is_refused_naming_file_byte_and_cause(data: str, tmp_path: pathlib.Path) -> None:
    content, reason = HOSTILE[data]
    path = write(tmp_path, content)
    with pytest.raises(BadModelFile) as caught:
        GgufFile(path)
    assert re.search(reason, str(caught.value))
    assert str(path) in str(caught.value)
    assert re.search(r"at byte \d+", str(caught.value))


@pytest.mark.parametrize("length", [0, 1, 3, 4, 12, 23, 24, 100, 1000, 5000])
def test_truncated_model_is_refused(length: int, tmp_path: pathlib.Path) -> None:
    whole = make.tiny_llama_gguf()
    with pytest.raises(BadModelFile):
        open_model(write(tmp_path, whole[:length]))


def test_paths_that_are_no_files_are_refused_without_waiting(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path / "missing.gguf", pathlib.Path("/dev/zero")):
        with pytest.raises(BadModelFile, match=re.escape(str(path))):
            GgufFile(path)


def change(pairs: list[bytes], key: str, replacement: bytes | None) -> list[bytes]:
    rest = [p for p in pairs if not p.startswith(make.text(key))]
    assert len(rest) == len(pairs) - 1
    return rest if replacement is None else [*rest, replacement]


@pytest.mark.parametrize(
    ("key", "replacement", "reason"),
    [
        ("general.architecture", None, "'general.architecture' is missing"),
        ("general.architecture", (make.STR, "rwkv9"), "known architectures: llama"),
        ("general.architecture", (make.U32, 4), "must be text"),
        ("llama.block_count", None, "'block_count' is missing"),
        ("llama.block_count", (make.STR, "two"), "must be an integer"),
        ("llama.block_count", (make.I32, -2), "must be an integer from 1"),
        ("llama.block_count", (make.U32, 0), "must be an integer from 1"),
        ("llama.block_count", (make.U64, 1 << 62), "must be an integer"),
        ("llama.block_count", (make.U32, (1 << 31) - 1), "must be an integer from 1 to 4096"),
        ("llama.context_length", (make.U32, (1 << 31) - 1), "must be an integer from 1 to"),
        ("llama.block_count", (make.U32, 3), "lacks the tensor 'blk.2.attn_norm.weight'"),
        ("llama.embedding_length", (make.U32, 64), "its config says"),
        ("llama.attention.head_count", (make.U32, 1 << 20), "must be an integer from 2"),
        ("llama.attention.head_count_kv", (make.U32, 3), "impossible model"),
        ("llama.rope.freq_base", (make.F32, float("nan")), "must be a finite number"),
        ("tokenizer.ggml.model", (make.STR, "rwkv"), "supported are gpt2, llama, t5, bert"),
        ("tokenizer.ggml.pre", (make.STR, "klingon"), "supported are default"),
        ("tokenizer.ggml.tokens", (make.ARR, (make.STR, ["a", "a"])), "1 of them different"),
        ("tokenizer.ggml.tokens", (make.ARR, (make.U32, [1, 2])), "must be an array of strings"),
        ("tokenizer.ggml.tokens", (make.ARR, (make.STR, ["a", "b"])), "token_type"),
        ("tokenizer.ggml.merges", (make.ARR, (make.STR, ["ab"])), "no pair"),
        ("tokenizer.ggml.merges", (make.ARR, (make.STR, ["nobody here"])), "unusable vocabulary"),
        ("tokenizer.ggml.eos_token_id", (make.U32, 1 << 20), "there are"),
    ],
)
def test_description_that_contradicts_itself_is_refused(
    key: str, replacement: tuple[int, Any] | None, reason: str, tmp_path: pathlib.Path
) -> None:
    pairs = [*make.llama_pairs(), *make.tokenizer_pairs()]
    new = None if replacement is None else make.pair(key, *replacement)
    data = make.f32_gguf(change(pairs, key, new), make.tensors(make.llama_gguf_shapes()))
    with pytest.raises(BadModelFile, match=re.escape(reason)):
        open_model(write(tmp_path, data))


def test_what_a_file_tells_of_itself_need_not_be_utf8(tmp_path: pathlib.Path) -> None:
    author = make.pair("general.author", make.STR, "Jürgen").replace(
        "Jürgen".encode(), "Jürgen!".encode("latin-1")
    )
    data = make.f32_gguf(
        [*make.llama_pairs(), *make.tokenizer_pairs(), author], make.tensors(make.llama_gguf_shapes())
    )
    files = open_model(write(tmp_path, data))
    assert GgufFile(files.path).metadata["general.author"] == "Jürgen!"
    files.close()
    template = make.pair("tokenizer.chat_template", make.STR, "ü").replace("ü".encode(), b"\xfc!")
    pairs = change([*make.llama_pairs(), *make.tokenizer_pairs()], "tokenizer.chat_template", template)
    with pytest.raises(BadModelFile, match="not valid UTF-8"):
        open_model(write(tmp_path, make.f32_gguf(pairs, make.tensors(make.llama_gguf_shapes()))))


def test_sound_tiny_model_opens_whole(tmp_path: pathlib.Path) -> None:
    files = open_model(write(tmp_path, make.tiny_llama_gguf()), name="tiny")
    assert files.spec == make.tiny_llama()
    assert files.spec.parameters == make.count(make.llama_gguf_shapes())
    assert set(files.weights.names()) >= {"embed", "final_norm", "layers.1.down", "layers.0.q"}
    assert files.end_tokens == {0, 2}
    assert (files.bos_token, files.add_bos, files.eos_token) == (0, False, 2)
    assert files.chat_template == "{{ messages[0].content }}"
    expected = make.tensors(make.llama_gguf_shapes())["blk.1.ffn_down.weight"]
    assert files.weights.tensor("layers.1.down").data.tobytes() == expected.tobytes()
    with pytest.raises(KeyError):
        files.weights.tensor("layers.2.down")
    files.close()
