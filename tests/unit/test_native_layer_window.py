"""Layers that pass under a bound of memory: equal logits, and no more pages than the bound."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping

import numpy as np
import pytest

from native_support import HERE, random_weights, tiny_spec
from page_counts import resident_bytes
from pentad.errors import Incompatible, Infeasible
from pentad.execution.expert_cache.recent import Recent
from pentad.execution.native.layer_window import WindowHook, window_plan
from pentad.execution.native.packed import PackedCache
from pentad.execution.native.pager import Pager
from pentad.execution.native.paging import ExpertMemory
from pentad.execution.native.runner import NativeRunner
from pentad.execution.residency.base import WeightResidency
from pentad.execution.residency.streamed import Streamed
from ragged_batches import ragged, whole

needs_kernels = pytest.mark.skipif(not HERE, reason="no native kernels are built")
SPEC = tiny_spec(layers=12, width=512, heads=8, kv_heads=4, ffn_width=1536)
TOKENS = np.random.default_rng(4).integers(0, 203, 24).tolist()
weights = functools.cache(lambda: random_weights(SPEC, "Q8_0"))


class TestPlan:
    @pytest.mark.row("mm-tpi-llm", "mechanism")
    def test_nothing_passes_where_all_fits_and_all_where_nothing_is_to_stay(self) -> None:
        sizes = [10] * 8 + [20]
        assert window_plan(sizes, 100, 1).passing == ()
        least = window_plan(sizes, None, 1)
        assert (least.passing, least.peak_bytes) == (tuple(range(9)), 30)

    def test_as_few_pass_as_the_memory_allows_and_they_are_spread(self) -> None:
        sizes = [10] * 12
        assert window_plan(sizes, 110, 1).passing == (0, 4, 8)
        assert window_plan(sizes, 80, 1).passing == (0, 2, 4, 6, 8, 10)
        for memory in range(20, 121):
            assert window_plan(sizes, memory, 1).peak_bytes <= memory

    def test_a_memory_below_the_window_is_refused_with_the_least_that_suffices(self) -> None:
        mib = 1 << 20
        with pytest.raises(Infeasible, match="set memory_mib of residency streamed to 3 or more"):
            window_plan([mib] * 4 + [2 * mib], 2 * mib, 1, model="m")
        assert window_plan([mib] * 4 + [2 * mib], 3 * mib, 1).peak_bytes == 3 * mib


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("packed")


def load(folder: pathlib.Path, residency: WeightResidency | None) -> NativeRunner:
    cache = PackedCache(folder=folder, identity="layers")
    return NativeRunner.load(
        SPEC, weights(), num_blocks=8, threads=1, kernels=HERE[0], cache=cache, residency=residency
    )


class Watched:
    """A window whose resident pages are measured at every layer (StepHook)."""

    def __init__(self, runner: NativeRunner) -> None:
        assert runner.pager is not None
        assert isinstance(runner.pager.hook, WindowHook)
        self.hook = runner.pager.hook
        self.most_bytes = 0
        self._weights = runner.packed_weights
        runner.pager.hook = self

    def begin(self, *, started: bool) -> None:
        self.hook.begin(started=started)

    def layer(self, layer: int) -> None:
        self.hook.layer(layer)
        self.most_bytes = max(self.most_bytes, resident_bytes(self._weights))

    def experts(self, layer: int, rows: Mapping[int, int], pager: Pager) -> None:
        raise AssertionError("there are none")

    def stats(self) -> dict[str, float]:
        return self.hook.stats()

    def close(self) -> None:
        self.hook.close()


@needs_kernels
@pytest.mark.row("mm-tpi-llm", "mechanism", claims=(3,))
@pytest.mark.row("par-deepspeed-inf", "mechanism")
@pytest.mark.parametrize(("memory_mib", "ahead"), [(0, 1), (0, 3), (9, 1), (20, 2), (1000, 1)])
def test_logits_are_those_of_all_weights_in_memory(folder: pathlib.Path, memory_mib: int, ahead: int) -> None:
    plain, tight = load(folder, None), load(folder, Streamed(memory_mib=memory_mib, ahead=ahead))
    watched = Watched(tight)
    steps = [whole(TOKENS[:20]), *(ragged([([t], 20 + i, [0, 1])]) for i, t in enumerate(TOKENS[20:]))]
    for batch in steps:
        np.testing.assert_array_equal(tight.logits(batch), plain.logits(batch))
    hook = watched.hook
    assert hook.peak_bytes == hook.plan.peak_bytes
    assert hook.peak_bytes <= memory_mib << 20 or not memory_mib
    passing = sum(hook._sizes[unit] for unit in hook.plan.passing)
    assert hook.read_bytes >= passing * (len(steps) - 1)
    if hook.plan.passing:
        # Pages come in runs of 64 KiB at both ends of what is read; a text's rows of the table likewise.
        spare = (2 * (ahead + 1) + len(TOKENS)) * (64 << 10)
        assert watched.most_bytes <= hook.plan.peak_bytes + spare
    plain.close()
    tight.close()


@needs_kernels
def test_what_cannot_be_is_refused(folder: pathlib.Path) -> None:
    with pytest.raises(Infeasible, match="hold no window"):
        load(folder, Streamed(memory_mib=1))
    with pytest.raises(Incompatible, match="leave expert_memory out, or set residency to mapped"):
        NativeRunner.load(
            SPEC,
            weights(),
            num_blocks=8,
            threads=1,
            kernels=HERE[0],
            cache=PackedCache(folder=folder, identity="layers"),
            residency=Streamed(),
            expert_memory=ExpertMemory(nbytes=1 << 30, policy=Recent()),
        )
