"""Packed weights on disk: mapped when they fit, made anew when anything is wrong."""

from __future__ import annotations

import logging
import mmap
import os
import pathlib
import zlib

import numpy as np
import pytest

from pentad.execution.native.packed import Bytes, PackedCache, anonymous, file_identity, forget_pages

SIZE = 3 * 4096 + 17


def checksum(data: Bytes) -> int:
    return zlib.crc32(data.tobytes())


class Packing:
    """Fills memory with one value, and counts how often."""

    def __init__(self, value: int = 7) -> None:
        self.value = value
        self.times = 0

    def __call__(self, memory: Bytes) -> None:
        self.times += 1
        memory[:] = self.value


def weights(
    folder: pathlib.Path, fill: Packing, *, identity: str = "a", description: str = "d", model: str = "m/1"
) -> tuple[Bytes, bool]:
    cache = PackedCache(folder=folder, identity=identity)
    made = cache.file(model, description, SIZE, fill, checksum)
    assert made is not None
    return made


def test_the_second_start_maps_what_the_first_one_packed(tmp_path: pathlib.Path) -> None:
    fill = Packing()
    first, found = weights(tmp_path / "new", fill)
    assert (found, fill.times) == (False, 1)
    second, found = weights(tmp_path / "new", fill)
    assert (found, fill.times) == (True, 1)
    assert bytes(first) == bytes(second) == b"\7" * SIZE
    assert not second.flags.writeable
    assert [p.name for p in (tmp_path / "new").iterdir()] == [
        p.name for p in (tmp_path / "new").glob("m_1-*.packed")
    ]


@pytest.mark.parametrize("change", [{"identity": "b"}, {"description": "other shapes"}])
def test_other_weights_are_packed_anew_and_replace_the_file(
    tmp_path: pathlib.Path, change: dict[str, str]
) -> None:
    old, _ = weights(tmp_path, Packing(1))
    new, found = weights(tmp_path, Packing(2), **change)
    assert not found
    assert set(new) == {2}
    assert set(old) == {1}  # a mapping outlives its file
    assert len(list(tmp_path.iterdir())) == 1


def test_another_model_keeps_its_own_file(tmp_path: pathlib.Path) -> None:
    weights(tmp_path, Packing(1))
    weights(tmp_path, Packing(2), model="m/1-large")
    assert len(list(tmp_path.iterdir())) == 2
    assert weights(tmp_path, Packing(3))[1]


def damage_byte(path: pathlib.Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 + 5000)
        file.write(b"\0")


def damage_header(path: pathlib.Path) -> None:
    with path.open("r+b") as file:
        file.write(b"X")


def cut(path: pathlib.Path) -> None:
    os.truncate(path, 4096 + 100)


def empty(path: pathlib.Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damage_byte, damage_header, cut, empty])
def test_a_damaged_file_is_made_anew(tmp_path: pathlib.Path, harm: object) -> None:
    weights(tmp_path, Packing(1))
    (path,) = tmp_path.iterdir()
    harm(path)  # type: ignore[operator]
    again = Packing(1)
    made, found = weights(tmp_path, again)
    assert (found, again.times, set(made)) == (False, 1, {1})
    assert weights(tmp_path, Packing(9))[1]


def test_a_folder_that_cannot_be_written_costs_only_the_next_start(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        cache = PackedCache(folder=tmp_path / "file", identity="a")
        assert cache.file("m/1", "d", SIZE, Packing(4), checksum) is None
    assert "packed weights are not kept for the next start" in caplog.text


def test_a_failure_while_packing_leaves_no_file(tmp_path: pathlib.Path) -> None:
    def fail(memory: Bytes) -> None:
        raise RuntimeError("a tensor is broken")

    with pytest.raises(RuntimeError, match="a tensor is broken"):
        PackedCache(folder=tmp_path, identity="a").file("m", "d", SIZE, fail, checksum)
    assert list(tmp_path.iterdir()) == []


def test_the_identity_follows_size_and_time_of_every_weight_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"12345")
    first = file_identity(file)
    assert file_identity(file) == first
    os.utime(file, ns=(1, 1))
    second = file_identity(file)
    file.write_bytes(b"123456")
    os.utime(file, ns=(1, 1))
    assert len({first, second, file_identity(file)}) == 3
    for name in ("a.safetensors", "b.safetensors", "config.json"):
        (tmp_path / name).write_bytes(b"x")
    folder = file_identity(tmp_path)
    assert folder.count("safetensors") == 2
    assert "config" not in folder


def test_anonymous_memory_is_zeroed_and_writable() -> None:
    memory = anonymous(SIZE)
    assert memory.size == SIZE
    assert not memory.any()
    memory[:] = 1


def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 256)
    with path.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    part = mapped[5000:60000]
    expected = bytes(part)
    resident = _resident_pages(mapped)
    forget_pages(part)
    assert _resident_pages(mapped) < resident
    assert bytes(part) == expected


def test_memory_that_is_no_mapped_file_is_left_alone() -> None:
    array = np.arange(100_000, dtype=np.uint8)
    forget_pages(array)
    np.testing.assert_array_equal(array, np.arange(100_000, dtype=np.uint8))
    private = anonymous(1 << 16)
    private[:] = 3
    forget_pages(private)
    assert set(private) == {3}


def _resident_pages(mapped: np.ndarray) -> int:
    """KiB of the mapping in this process's memory, as the kernel counts them."""
    smaps = pathlib.Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("this system does not tell which pages are resident")
    address = mapped.__array_interface__["data"][0]
    lines = iter(smaps.read_text().splitlines())
    for line in lines:
        if line.startswith(f"{address:x}-"):
            return next(int(rest.split()[1]) for rest in lines if rest.startswith("Rss:"))
    raise AssertionError("the mapping is not listed")
