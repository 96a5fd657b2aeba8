"""Our safetensors reader: equal to the library on sound files, and unmoved by hostile ones."""

from __future__ import annotations

import json
import pathlib
import re
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as reference

import model_fixtures as make
from pentad.errors import BadModelFile
from pentad.model.files.safetensors import SafetensorsFile, SafetensorsFolder


def write(folder: pathlib.Path, data: bytes, name: str = "model.safetensors") -> pathlib.Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_tensors_read_as_the_library_wrote_them(tmp_path: pathlib.Path) -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(5, dtype=np.float16),
        "ids": np.arange(4, dtype=np.int64),
        "empty": np.zeros((0, 3), dtype=np.float32),
    }
    path = tmp_path / "model.safetensors"
    reference.save_file(arrays, path, metadata={"format": "pt"})
    file = SafetensorsFile(path)
    assert {name: info.shape for name, info in file.tensors.items()} == {
        n: a.shape for n, a in arrays.items()
    }
    for name in ("a", "b"):
        assert file.tensor(name).data.tobytes() == arrays[name].tobytes()
    assert file.tensor("b").format == "F16"
    with pytest.raises(BadModelFile, match="is I64, weights are"):
        file.tensor("ids")


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def one(tensor: Any, data: int = 16) -> bytes:
    return make.safetensors({"t": tensor}, bytes(data))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "seven bytes": (bytes(7), "its header length alone takes 8"),
    "header of 2^63": (struct.pack("<Q", 1 << 63) + b"{}", "does not fit"),
    "header one too long": (struct.pack("<Q", 3) + b"{}", "does not fit"),
    "no JSON": (make.safetensors({}, b"", b"{nope"), "not valid JSON"),
    "no UTF-8": (make.safetensors({}, b"", b"\xff\xfe"), "not valid JSON"),
    "bottomless JSON": (make.safetensors({}, b"", b"[" * 100_000), "not valid JSON"),
    "no object": (make.safetensors({}, b"", b"[1]"), "no object"),
    "duplicate name": (
        make.safetensors({}, bytes(4), b'{"t":{"dtype":"F32"},"t":{"dtype":"F32"}}'),
        "appears twice",
    ),
    "no entry": (one(7), "unknown type"),
    "unknown type": (one(entry([4], 0, 16, "F77")), "unknown type 'F77'"),
    "type that is a list": (one(entry([4], 0, 16, ["F32"])), "unknown type"),
    "negative dimension": (one(entry([-4], 0, 16)), "impossible shape"),
    "dimension that is true": (one(entry([True], 0, 4)), "impossible shape"),
    "fractional dimension": (one(entry([4.0], 0, 16)), "impossible shape"),
    "huge product": (one(entry([1 << 62, 1 << 62], 0, 16)), "has offsets 0 to 16"),
    "too many dimensions": (one(entry([1] * 9, 0, 4)), "impossible shape"),
    "offsets reversed": (one(entry([4], 16, 0)), "has offsets"),
    "negative offset": (one(entry([4], -16, 0)), "impossible offsets"),
    "one offset": (one({"dtype": "F32", "shape": [4], "data_offsets": [0]}), "impossible offsets"),
    "past the file": (one(entry([8], 0, 32)), "the file has"),
    "size unlike shape": (one(entry([3], 0, 16)), "of 12 bytes has offsets"),
    "overlap": (
        make.safetensors({"a": entry([4], 0, 16), "b": entry([4], 8, 24)}, bytes(24)),
        "overlaps",
    ),
    "gap": (make.safetensors({"a": entry([1], 4, 8)}, bytes(8)), "leaves a gap"),
    "bytes left over": (one(entry([2], 0, 8)), "tensors end here"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_refused_naming_file_and_cause(case: str, tmp_path: pathlib.Path) -> None:
    content, reason = HOSTILE[case]
    path = write(tmp_path, content)
    with pytest.raises(BadModelFile, match=re.escape(str(path))) as caught:
        SafetensorsFile(path)
    assert reason in str(caught.value)


def shard(folder: pathlib.Path, index: Any) -> pathlib.Path:
    write(folder, json.dumps(index).encode(), "model.safetensors.index.json")
    return folder


def test_shards_are_one_container(tmp_path: pathlib.Path) -> None:
    one_tensor = np.arange(4, dtype=np.float32)
    write(tmp_path, make.f32_safetensors({"a": one_tensor}), "a.safetensors")
    write(tmp_path, make.f32_safetensors({"b": one_tensor + 1}), "b.safetensors")
    shard(tmp_path, {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})
    folder = SafetensorsFolder(tmp_path)
    assert sorted(folder.tensors) == ["a", "b"]
    assert folder.tensor("b").data.view(np.float32).tolist() == [1, 2, 3, 4]
    assert folder.size_bytes == sum(p.stat().st_size for p in tmp_path.glob("*.safetensors"))
    folder.close()


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/passwd", "a/b.safetensors", "x\0.safetensors", "pytorch_model.bin", ".."],
)
def test_index_that_points_out_of_its_folder_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadModelFile, match="is no file of this folder"):
        SafetensorsFolder(shard(tmp_path, {"weight_map": {"a": name}}))


@pytest.mark.parametrize("index", [[], {"weight_map": 3}, {"weight_map": ["a"]}, {}, "x"])
def test_index_without_a_map_is_refused(index: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadModelFile, match="holds no weight_map"):
        SafetensorsFolder(shard(tmp_path, index))


def test_tensor_in_two_shards_is_refused(tmp_path: pathlib.Path) -> None:
    data = make.f32_safetensors({"a": np.zeros(4, np.float32)})
    write(tmp_path, data, "a.safetensors")
    write(tmp_path, data, "b.safetensors")
    with pytest.raises(BadModelFile, match="'a' is in both"):
        SafetensorsFolder(shard(tmp_path, {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))


def test_missing_shard_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadModelFile, match=re.escape("gone.safetensors")):
        SafetensorsFolder(shard(tmp_path, {"weight_map": {"a": "gone.safetensors"}}))
