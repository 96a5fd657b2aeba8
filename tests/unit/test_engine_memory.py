"""Admission by memory: what is free under every limit, and requests that it will not do for."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from pentad.errors import Unavailable
from pentad.execution.batch import RaggedBatch
from pentad.execution.memory import FreeMemory, free_bytes
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import run, token_request, toy_engine
from pentad.testing.runners import ToyRunner

MIB = 1 << 20


def group(folder: pathlib.Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def proc(folder: pathlib.Path, groups: str) -> pathlib.Path:
    (folder / "proc").mkdir()
    (folder / "proc" / "cgroup").write_text(groups)
    (folder / "proc" / "statm").write_text("0 0 0 0 0 0 0\n")
    return folder / "proc"


def test_the_tightest_control_group_on_the_way_up_counts_and_its_file_cache_is_free(
    tmp_path: pathlib.Path,
) -> None:
    root = tmp_path / "cgroup"
    stat = f"anon 5\ninactive_file {3 * MIB}\nactive_file {MIB}"
    group(root / "a", memory__max=100 * MIB, memory__current=90 * MIB, memory__stat=stat)
    group(root / "a" / "b", memory__max="max", memory__current=50 * MIB, memory__stat=stat)
    assert free_bytes(proc(tmp_path, "0::/a/b\n"), root) == 14 * MIB
    group(root / "a" / "b", memory__max=52 * MIB)
    assert free_bytes(tmp_path / "proc", root) == 6 * MIB


def test_the_first_version_of_control_groups_is_read_too(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "cgroup"
    stat = f"total_inactive_file {MIB}\ntotal_active_file 0"
    group(
        root / "memory" / "a",
        memory__limit_in_bytes=20 * MIB,
        memory__usage_in_bytes=15 * MIB,
        memory__stat=stat,
    )
    assert free_bytes(proc(tmp_path, "5:cpu:/a\n4:memory:/a\n"), root) == 6 * MIB


def test_a_group_over_its_limit_leaves_nothing(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "cgroup"
    group(root, memory__max=MIB, memory__current=2 * MIB)
    assert free_bytes(proc(tmp_path, "0::/\n"), root) == 0


def test_without_control_groups_the_machine_s_memory_counts(tmp_path: pathlib.Path) -> None:
    assert free_bytes(tmp_path / "none", tmp_path / "nothing") > 64 * MIB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the process's own size is read from /proc")
def test_a_limit_of_the_process_counts() -> None:
    program = (
        "import resource; from pentad.execution.memory import free_bytes;"
        "pages = int(open('/proc/self/statm').read().split()[0]);"
        "limit = pages * resource.getpagesize() + 300 * 2**20;"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit)); print(free_bytes())"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert 200 * MIB < int(found.stdout) <= 300 * MIB


def test_a_reading_serves_for_a_moment() -> None:
    now, readings = [0.0], iter(range(100))
    free = FreeMemory(lambda: now[0], lambda: next(readings))
    assert [free.bytes(), free.bytes()] == [0, 0]
    now[0] = 0.06
    assert free.bytes() == 1
    now[0] = 0.0  # a clock that was set back
    assert free.bytes() == 2


def test_a_request_that_memory_will_not_do_for_is_refused_and_served_once_it_does() -> None:
    free = [66 * MIB]
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    runner = ToyRunner(num_blocks=100, block_size=4)
    runner.block_bytes = MIB
    engine = toy_engine(Sarathi(), runner=runner, memory=FreeMemory(clock, lambda: free[0]), clock=clock)
    small, large = token_request("small", range(3), 1), token_request("large", range(30), 10)
    engine.add(small)
    with pytest.raises(Unavailable, match="MiB of memory are free") as raised:
        engine.add(large)
    assert raised.value.retry_after_s > 0
    assert raised.value.status == 503
    assert not any(seq == "large" for seq in engine._sequences)
    free[0] = 64 * MIB + 11 * MIB + MIB // 2
    engine.add(large)
    with pytest.raises(Unavailable):  # what is promised to those that are here counts
        engine.add(token_request("more", range(3), 1))
    answers = run(engine)
    assert answers["large"].finish == "length"
    free[0] = 64 * MIB + MIB // 2
    engine.add(token_request("again", range(30), 5))  # in blocks that have been in use
    free[0] = 64 * MIB - 1
    with pytest.raises(Unavailable):
        engine.refuse_if_full()


def test_a_step_that_finds_no_memory_tells_its_requests_to_come_again() -> None:
    def fail(batch: RaggedBatch) -> None:
        raise MemoryError

    engine = toy_engine(Sarathi(), runner=ToyRunner(before_step=fail))
    error = run(engine, token_request("a", range(5), 3))["a"].error
    assert isinstance(error, Unavailable)
    assert error.retry_after_s > 0
