"""What mapping the packed weights gains: shared memory, fast starts, and models larger than memory."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from evidence.plugin import Measure
from native_support import HERE
from process_children import child, forget_file, held, memory_group

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason="no native kernels are built"),
    pytest.mark.skipif(not pathlib.Path("/proc/self/smaps").exists(), reason="needs Linux's /proc"),
]

Record = Callable[[str, object], None]

PROGRAM = "native_mapped.py"
ANSWER_TOKENS = 8
ROUNDS = 5


@pytest.fixture(params=["smollm2-135m", "qwen-0.5b"])
def model(request: pytest.FixtureRequest) -> pathlib.Path:
    fixture = {"smollm2-135m": "smollm2_path", "qwen-0.5b": "qwen_path"}[request.param]
    path: pathlib.Path = request.getfixturevalue(fixture)
    return path


def share(run: dict[str, Any], name: str) -> float:
    """A size as a share of the weights."""
    return float(run[name] / run["weight_bytes"])


@pytest.mark.row("mm-mmap", "effect", claims=(2,))
def test_a_second_process_adds_under_a_tenth_of_the_weights_to_memory(
    model: pathlib.Path, tmp_path: pathlib.Path, measured: Measure
) -> None:
    child(PROGRAM, model, tmp_path, 0)
    with (
        held(PROGRAM, model, tmp_path, ANSWER_TOKENS) as first,
        held(PROGRAM, model, tmp_path, ANSWER_TOKENS) as second,
    ):
        pass
    print(f"\n{model.stem}", first, second, sep="\n")
    assert first["found"]
    assert second["found"]
    assert second["tokens"] == first["tokens"]
    assert share(second, "grown_rss_bytes") > 0.9  # all of the weights were read
    added = share(second, "grown_unshared_bytes")
    measured(f"{model.stem}, added of the weights", added, at_most=0.1)


@pytest.mark.row("mm-mmap", "effect", claims=(3,))
def test_a_warm_start_loads_five_times_as_fast_as_the_first(
    model: pathlib.Path, tmp_path: pathlib.Path, record_property: Record, measured: Measure
) -> None:
    first, warm = [], []
    for i in range(ROUNDS):
        packed, mapped = (child(PROGRAM, model, tmp_path / str(i), 0) for _ in range(2))
        assert (packed["found"], mapped["found"]) == (False, True)
        first.append(packed["load_s"])
        warm.append(mapped["load_s"])
        for file in (tmp_path / str(i)).iterdir():
            file.unlink()
    seconds = [statistics.median(times) for times in (first, warm)]
    print(
        f"\n{model.stem}: first {seconds[0]:.3f} s, warm {seconds[1]:.3f} s, {seconds[0] / seconds[1]:.1f}x"
    )
    record_property(f"{model.stem}, first and warm s", [round(value, 4) for value in seconds])
    measured(f"{model.stem}, first over warm", seconds[0] / seconds[1], at_least=5, unit="x")


@pytest.mark.row("mm-mmap", "effect", claims=(1,))
def test_a_model_larger_than_the_memory_that_it_may_use_still_answers(
    qwen_large_path: pathlib.Path, tmp_path: pathlib.Path, record_property: Record, measured: Measure
) -> None:
    free = child(PROGRAM, qwen_large_path, tmp_path, ANSWER_TOKENS)
    (packed,) = tmp_path.iterdir()
    for file in (packed, qwen_large_path):
        forget_file(file)
    cap = int(0.7 * free["weight_bytes"])
    with memory_group(cap) as group:
        capped = child(PROGRAM, qwen_large_path, tmp_path, ANSWER_TOKENS, group=group)
        peak, reclaims = group.peak_bytes, group.reclaims
    print(f"\nweights {free['weight_bytes']:,} bytes, cap {cap:,}, peak {peak:,}, {reclaims} reclaims")
    print(free, capped, sep="\n")
    record_property("cap, weights and peak bytes", [cap, free["weight_bytes"], peak])
    measured("peak memory of the weights", peak / capped["weight_bytes"], at_most=0.7)
    assert peak <= cap < capped["weight_bytes"]
    assert reclaims > 0
    assert capped["found"]
    assert capped["tokens"] == free["tokens"]
