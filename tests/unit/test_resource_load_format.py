"""Packed weights against safetensors: from closed files to a runner that can step, warm and cold."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Iterable

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from evidence.plugin import Measure
from native_support import HERE
from pentad.execution.native.packed import PackedCache, file_identity
from pentad.execution.native.runner import NativeRunner
from pentad.execution.spec import Rope
from pentad.execution.uniform import uniform_spec
from pentad.execution.weights import StoredTensor, TensorFormat

ROW = "ra-serverlessllm"
pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels for this CPU")
SPEC = uniform_spec(
    name="loaded",
    family="llama",
    vocab_size=8_000,
    layers=6,
    width=768,
    heads=12,
    kv_heads=4,
    head_dim=64,
    ffn_width=2048,
    context_length=512,
    positions=Rope(dim=64),
)


class Copied:
    """A safetensors file, each tensor of which is read and copied."""

    def __init__(self, path: pathlib.Path) -> None:
        self._file = safetensors.safe_open(path, framework="pt")  # type: ignore[no-untyped-call]

    def names(self) -> Iterable[str]:
        return list(self._file.keys())

    def tensor(self, name: str) -> StoredTensor:
        found = self._file.get_tensor(name).clone()
        format: TensorFormat = "BF16" if found.dtype == torch.bfloat16 else "F32"
        data = found.contiguous().view(-1).view(torch.uint8).numpy()
        return StoredTensor(name=name, format=format, shape=tuple(found.shape), data=data)


def written(path: pathlib.Path) -> pathlib.Path:
    draw = torch.Generator().manual_seed(1)
    tensors = {
        name: torch.randn(shape, generator=draw).mul_(shape[-1] ** -0.5).to(torch.bfloat16)
        if len(shape) > 1
        else torch.ones(shape)
        for name, shape in SPEC.tensors().items()
    }
    save_file(tensors, path)
    return path


def forget(*files: pathlib.Path) -> None:
    """Puts files out of the page cache, so that they are read from the disk."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(model: pathlib.Path, cache: PackedCache | None) -> float:
    """From closed files to a runner whose weights are in memory."""
    begin = time.perf_counter()
    runner = NativeRunner.load(SPEC, Copied(model), num_blocks=4, threads=1, cache=cache)
    took_s = time.perf_counter() - begin
    runner.close()
    return took_s


@pytest.mark.row(ROW, "mechanism")
def test_a_packed_file_is_one_sequential_range_that_is_mapped_as_it_lies(tmp_path: pathlib.Path) -> None:
    model = written(tmp_path / "model.safetensors")
    cache = PackedCache(folder=tmp_path / "packed", identity=file_identity(model))
    NativeRunner.load(SPEC, Copied(model), num_blocks=4, threads=1, cache=cache).close()
    (packed,) = (tmp_path / "packed").iterdir()
    stamp = packed.stat().st_mtime_ns
    NativeRunner.load(SPEC, Copied(model), num_blocks=4, threads=1, cache=cache).close()
    assert packed.stat().st_mtime_ns == stamp, "it is made once"
    assert packed.stat().st_size < model.stat().st_size, "codes of 8 bits for numbers of 16"


@pytest.mark.slow  # times both on a machine with nothing else to do
@pytest.mark.row(ROW, "effect", claims=(1,))
@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_packed_weights_are_loaded_at_least_twice_as_fast(
    *, cold: bool, tmp_path: pathlib.Path, measured: Measure
) -> None:
    """A model in BF16; the median of three rounds, both ways in turn. Cold: read from this machine's disk.

    The baseline reads and copies every tensor and brings it into the layout that the kernels need; a packed
    file holds that layout, in 8 bits, and its checksum is computed over all of it.
    """
    model = written(tmp_path / "model.safetensors")
    cache = PackedCache(folder=tmp_path / "packed", identity=file_identity(model))
    seconds(model, cache)  # packs
    took: dict[str, list[float]] = {"safetensors": [], "packed": []}
    for _ in range(3):
        for name, kept in (("safetensors", None), ("packed", cache)):
            if cold:
                forget(model, *(tmp_path / "packed").iterdir())
            took[name].append(seconds(model, kept))
    medians = {name: sorted(each)[1] for name, each in took.items()}
    print(f"\n{'cold' if cold else 'warm'}: {medians}")
    ratio = medians["safetensors"] / medians["packed"]
    measured(
        f"loading time, safetensors copied over packed, {'cold' if cold else 'warm'}", ratio, at_least=2.0
    )
