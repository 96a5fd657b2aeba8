"""What the kernels do when the system gives too little memory, threads or file: errors, never aborts."""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.errors import BadModelFile, InvalidRequest
from pentad.execution.native.packed import PackedCache, file_identity
from pentad.execution.native.runner import NativeRunner
from pentad.model.stored import check_blobs
from ragged_batches import whole

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux") or not HERE, reason="limits of Linux")
SPEC = tiny_spec(layers=1)
TOKENS = list(range(20, 60))

PREAMBLE = """
import os, pathlib, resource, sys
import numpy as np
sys.path[:0] = {paths!r}
from native_support import random_weights, tiny_spec
from pentad.execution.native.packed import PackedCache, anonymous
from pentad.execution.native.runner import NativeRunner, WeightsLost
from ragged_batches import whole

spec, weights = tiny_spec(layers=1), random_weights(tiny_spec(layers=1), "Q4_0")

def leave(spare):
    limit = resource.RLIM_INFINITY
    if spare is not None:  # opening a file takes memory too, which there may be none of
        limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + spare
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
"""


def in_a_process(program: str, *arguments: str) -> str:
    """What a program of its own says; it must come to its end."""
    paths = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1])]
    code = PREAMBLE.format(paths=paths) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_step_that_finds_no_memory_is_an_error_and_the_next_one_is_right() -> None:
    said = in_a_process(
        """
        spec = tiny_spec(layers=1, context_length=8192)
        runner = NativeRunner.load(spec, weights, num_blocks=512, threads=1)
        small, large = whole(range(20, 40)), whole(np.arange(8000) % 200, rows=[7999])
        expected = runner.logits(small)
        for spare in range(0, 4 << 20, 256 << 10):
            leave(spare)
            try:
                runner.logits(large)
            except MemoryError as error:
                print("refused", error)
            else:
                break
            finally:
                leave(None)
            np.testing.assert_array_equal(runner.logits(small), expected)
        reference = NativeRunner.load(spec, weights, num_blocks=512, threads=1).logits(large)
        np.testing.assert_array_equal(runner.logits(large), reference)
    """
    )
    assert "refused no memory for a step of 8000 tokens" in said


def test_a_team_is_as_large_as_the_system_allows() -> None:
    said = in_a_process("""
        import logging
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        expected = NativeRunner.load(spec, weights, num_blocks=8, threads=1).logits(whole(range(20, 40)))
        leave(200 << 20)
        runner = NativeRunner.load(spec, weights, num_blocks=8, threads=200)
        leave(None)
        np.testing.assert_array_equal(runner.logits(whole(range(20, 40))), expected)
        runner.close()
    """)
    assert "of 200 threads" in said


def test_three_hundred_threads_compute_what_one_does() -> None:
    one = NativeRunner.load(SPEC, random_weights(SPEC, "Q4_0"), num_blocks=8, threads=1)
    many = NativeRunner.load(SPEC, random_weights(SPEC, "Q4_0"), num_blocks=8, threads=300)
    for batch in (whole(TOKENS), whole(TOKENS[:1])):  # a step of one token takes a row per thread
        np.testing.assert_array_equal(many.logits(batch), one.logits(batch))
    many.close()
    one.close()
    with pytest.raises(InvalidRequest, match="1 to 1024"):
        NativeRunner.load(SPEC, random_weights(SPEC, "Q4_0"), num_blocks=8, threads=1025)


def test_a_file_of_weights_that_is_cut_short_ends_steps_and_not_the_process(tmp_path: pathlib.Path) -> None:
    said = in_a_process(
        """
        folder = pathlib.Path(sys.argv[1])
        cache = PackedCache(folder=folder, identity="this")
        runner = NativeRunner.load(spec, weights, num_blocks=8, threads=2, cache=cache)
        batch = whole(range(20, 40))
        runner.logits(batch)
        (file,) = folder.glob("*.packed")
        os.truncate(file, 4096)
        for _ in range(2):
            try:
                runner.logits(batch)
            except WeightsLost as error:
                print("lost:", error)
        runner.close()
        again = NativeRunner.load(spec, weights, num_blocks=8, threads=2, cache=cache)
        assert np.isfinite(again.logits(batch)).all()
        print("packed anew", not again.weights_found)
    """,
        str(tmp_path),
    )
    assert said.count("lost: the file of packed weights was cut short") == 2
    assert "packed anew True" in said


def test_a_model_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path: pathlib.Path) -> None:
    said = in_a_process(
        """
        import dataclasses, mmap
        from pentad.errors import BadModelFile
        file = pathlib.Path(sys.argv[1]) / "weights"
        stored = weights.tensors["layers.0.gate"]
        file.write_bytes(stored.data.tobytes())
        with file.open("rb") as opened:
            data = np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        tensors = dict(weights.tensors) | {"layers.0.gate": dataclasses.replace(stored, data=data)}
        os.truncate(file, 0)
        try:
            NativeRunner.load(spec, dataclasses.replace(weights, tensors=tensors), num_blocks=8, threads=2)
        except BadModelFile as error:
            print(error)
    """,
        str(tmp_path),
    )
    assert "cut short while it was read" in said


def test_a_blob_with_other_bytes_of_the_same_size_and_time_is_noticed_and_refused(
    tmp_path: pathlib.Path,
) -> None:
    import os

    content = b"weights" * 100
    blob = tmp_path / f"sha256-{hashlib.sha256(content).hexdigest()}"
    blob.write_bytes(content)
    check_blobs(blob)
    before, state = file_identity(blob), blob.stat()
    blob.write_bytes(content.replace(b"w", b"v"))
    os.utime(blob, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert blob.stat().st_mtime_ns == state.st_mtime_ns
    assert file_identity(blob) != before
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(blob)
    for path in (blob, folder):
        with pytest.raises(BadModelFile, match="not the one that it is named by"):
            check_blobs(path)
    packed = PackedCache(folder=tmp_path / "packed", identity="x", check=lambda: check_blobs(blob))
    with pytest.raises(BadModelFile):
        packed.file("m", "d", 64, lambda memory: memory.fill(1), lambda memory: int(memory.sum()))
    assert not list((tmp_path / "packed").glob("*"))
