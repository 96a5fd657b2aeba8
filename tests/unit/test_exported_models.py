"""Models in other engines' forms: what their manifests say, and every way in which they can be broken."""

from __future__ import annotations

import json
import pathlib
import struct
from typing import Any

import pytest

from pentad.application.config import RemoteBackend
from pentad.application.remote_backend import remote_backend
from pentad.errors import BadModelFile, InvalidRequest
from pentad.model.exports.mlc import read_mlc
from pentad.model.exports.mllm import read_mllm
from pentad.model.exports.mnn import mnn_conversion, read_mnn


def folder(path: pathlib.Path, **files: Any) -> pathlib.Path:
    """A folder of files; objects become JSON, numbers so many bytes."""
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        data = b"x" * content if isinstance(content, int) else json.dumps(content).encode()
        (path / name).write_bytes(data)
    return path


def mlc(path: pathlib.Path, **change: Any) -> pathlib.Path:
    files: dict[str, Any] = {
        "mlc-chat-config.json": {
            "model_type": "llama",
            "quantization": "q4f16_1",
            "context_window_size": 4096,
            "tensor_parallel_shards": 2,
        },
        "ndarray-cache.json": {"records": [{"dataPath": "params_shard_0.bin", "nbytes": 64}]},
        "params_shard_0.bin": 64,
    }
    return folder(path, **(files | change))


def mnn(path: pathlib.Path, **change: Any) -> pathlib.Path:
    files: dict[str, Any] = {
        "config.json": {"llm_model": "llm.mnn", "llm_weight": "llm.mnn.weight", "precision": "low"},
        "llm_config.json": {"hidden_size": 64, "is_visual": True},
        "llm.mnn": 10,
        "llm.mnn.weight": 100,
        "embeddings_bf16.bin": 50,
        "tokenizer.txt": 5,
        "visual.mnn": 7,
    }
    return folder(path, **(files | change))


def mllm_first(path: pathlib.Path, name: bytes = b"w", offset: int = 100, size: int = 8) -> pathlib.Path:
    entry = struct.pack("<i", len(name)) + name + struct.pack("<QQi", size, offset, 0)
    path.write_bytes((struct.pack("<iQ", 20012, len(entry)) + entry).ljust(108, b"\0"))
    return path


def mllm_second(path: pathlib.Path, count: int = 1, offset: int = 900) -> pathlib.Path:
    header = struct.pack("<ii512sIQ", 0x519A, 2, b"qwen", count, 532)
    entry = struct.pack("<IIQQQ16i256s", 0, 0, 8, offset, 2, 2, 4, *[0] * 14, b"w")
    path.write_bytes((header + entry).ljust(908, b"\0"))
    return path


@pytest.mark.row("be-mlc", "mechanism", claims=(2,))
def test_a_folder_of_mlc_tells_its_context_and_how_many_devices_share_it(tmp_path: pathlib.Path) -> None:
    found = read_mlc(mlc(tmp_path / "m"))
    assert (found.context_length, found.devices, found.quantization) == (4096, 2, "q4f16_1")
    assert found.size_bytes == 64


@pytest.mark.row("be-mlc", "mechanism", claims=(2,))
def test_what_a_folder_says_is_what_its_backend_can_do(tmp_path: pathlib.Path) -> None:
    near: dict[str, Any] = {"name": "near", "url": "http://127.0.0.1:1/v1", "remote": False}
    can = remote_backend(RemoteBackend(**near, engine="mlc", exported=mlc(tmp_path / "m"))).capabilities
    assert can.context_length == 4096
    assert can.logprobs
    assert not can.tools
    seen = remote_backend(RemoteBackend(**near, engine="mnn", exported=mnn(tmp_path / "n"))).capabilities
    assert set(seen.media) == {"image"}
    assert set(seen.formats) == {"text"}
    assert seen.context_length == 8192
    with pytest.raises(InvalidRequest, match="engine 'vllm' has no form"):
        remote_backend(RemoteBackend(**near, engine="vllm", exported=tmp_path))


@pytest.mark.row("be-mnn", "mechanism", claims=(1,))
def test_a_folder_of_mnn_is_whole_or_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    found = read_mnn(mnn(tmp_path / "m"))
    assert found.size_bytes == 160
    assert set(found.media) == {"image"}
    for gone in ("llm.mnn", "llm.mnn.weight", "tokenizer.txt", "embeddings_bf16.bin", "visual.mnn"):
        broken = mnn(tmp_path / gone)
        (broken / gone).unlink()
        with pytest.raises(BadModelFile, match=f"{gone} is missing"):
            read_mnn(broken)
    tied = mnn(tmp_path / "tied", **{"llm_config.json": {"tie_embeddings": [1, 2, 3]}})
    assert read_mnn(tied).size_bytes == 110
    with pytest.raises(BadModelFile, match="names the file"):
        read_mnn(mnn(tmp_path / "out", **{"config.json": {"llm_model": "../llm.mnn"}}))
    with pytest.raises(BadModelFile, match="has no llm_config"):
        read_mnn(folder(tmp_path / "few", **{"config.json": {}}))


@pytest.mark.row("be-mnn", "mechanism", claims=(1,))
def test_a_folder_that_is_not_there_is_made_by_one_command(tmp_path: pathlib.Path) -> None:
    command = mnn_conversion("models/qwen", "out", bits=8, block=128)
    assert command[:5] == ("llmexport", "--path", "models/qwen", "--dst_path", "out")
    assert command[5:] == ("--export", "mnn", "--quant_bit", "8", "--quant_block", "128")
    with pytest.raises(BadModelFile, match="no folder") as caught:
        read_mnn(tmp_path / "none")
    assert f"llmexport --path MODEL --dst_path {tmp_path / 'none'}" in (caught.value.hint or "")
    with pytest.raises(InvalidRequest, match="bits is 9"):
        mnn_conversion("a", "b", bits=9)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"params_shard_0.bin": 3}, "has 3 bytes, its manifest says 64"),
        ({"ndarray-cache.json": {"records": []}}, "lists no shards"),
        ({"ndarray-cache.json": {"records": [{"dataPath": "/etc/passwd", "nbytes": 1}]}}, "names the file"),
        ({"mlc-chat-config.json": {"context_window_size": -1}}, "context_window_size is '-1'"),
        ({"mlc-chat-config.json": [1]}, "no JSON object"),
    ],
)
def test_a_broken_folder_of_mlc_says_why(tmp_path: pathlib.Path, change: dict[str, Any], why: str) -> None:
    with pytest.raises(BadModelFile, match=why):
        read_mlc(mlc(tmp_path / "m", **change))


@pytest.mark.row("be-mllm", "mechanism", claims=(2,))
def test_both_forms_of_mllm_are_known_by_their_content(tmp_path: pathlib.Path) -> None:
    assert read_mllm(mllm_first(tmp_path / "one.mllm")).format == "mllm-1"
    second = read_mllm(mllm_second(tmp_path / "two.mllm"))
    assert (second.format, second.size_bytes) == ("mllm-2", 8)


@pytest.mark.row("be-mllm", "mechanism", claims=(2,))
def test_a_broken_file_of_mllm_says_why(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.mllm"
    for broken, why in (
        (lambda: mllm_first(path, offset=101), "ends at 108, its tensor 'w' at 109"),
        (lambda: mllm_second(path, offset=901), "ends at 908"),
        (lambda: mllm_second(path, count=9), "in its table"),
        (lambda: mllm_second(path, count=0), "has no tensors"),
        (lambda: path.write_bytes(b"GGUF" + bytes(90)), "which no file of mllm does"),
        (lambda: path.write_bytes(struct.pack("<iQi", 20012, 90, -5)), "a name of -5 bytes"),
        (lambda: path.write_bytes(b""), "ends after 0 bytes"),
    ):
        broken()
        with pytest.raises(BadModelFile, match=why):
            read_mllm(path)
