"""Weight residency: the same bits reach the kernels, and the bytes that are told are those that are taken."""

from __future__ import annotations

import multiprocessing
import pathlib
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.application import runners
from pentad.application.config import EngineSettings
from pentad.choice import Choice
from pentad.errors import Incompatible, Infeasible
from pentad.execution.native.packed import PackedCache
from pentad.execution.native.runner import NativeRunner
from pentad.execution.residency import resident
from pentad.execution.residency.base import PACKED_FILE, HeldWeights, ResidencyRates, WeightResidency
from pentad.execution.residency.mapped import Mapped
from pentad.execution.residency.resident import Resident
from pentad.registry import known
from ragged_batches import whole
from residency_support import SIZE, Packed, measured_takings, strategy

MARGIN = SIZE // 4
RATES = ResidencyRates(free_bytes=1 << 30, disk_bytes_per_s=1e9)


@pytest.mark.parametrize("name", known("residency"))
class TestEveryResidency:
    def test_the_same_bytes_are_there_whether_packed_found_or_kept_nowhere(
        self, name: str, tmp_path: pathlib.Path
    ) -> None:
        expected = np.empty(SIZE, np.uint8)
        Packed(folder=None).fill(expected)
        first, second = (strategy(name).hold(Packed(folder=tmp_path)) for _ in range(2))
        nowhere = strategy(name).hold(Packed(folder=None))
        assert [held.found for held in (first, second, nowhere)] == [False, True, False]
        for held in (first, second, nowhere):
            np.testing.assert_array_equal(held.memory, expected)

    def test_the_bytes_that_it_tells_are_those_that_the_process_takes(
        self, name: str, tmp_path: pathlib.Path
    ) -> None:
        # A process of its own: what earlier tests left behind allocates and frees in this one.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
            measured = fresh.submit(measured_takings, name, tmp_path).result()
        for taken, held_bytes, mapped_bytes, is_file in measured:
            assert abs(taken - held_bytes) < MARGIN
            assert held_bytes + mapped_bytes == SIZE
            assert is_file == (mapped_bytes > 0)

    def test_a_decision_says_where_and_needs_and_exactness_are_declared(
        self, name: str, tmp_path: pathlib.Path
    ) -> None:
        chosen = strategy(name)
        decision = chosen.hold(Packed(folder=tmp_path)).decision
        assert (decision.layer, decision.policy, decision.subject) == ("execution", name, "weights")
        assert dict(decision.candidates).keys() == {"memory", "mapped"}
        assert chosen.needs <= {PACKED_FILE}
        assert chosen.exactness == "lossless"
        without = chosen.hold(Packed(folder=None)).decision
        assert (without.constraint is not None) == (PACKED_FILE in chosen.needs)

    def test_its_cost_grows_with_the_weights(self, name: str) -> None:
        small, large = (strategy(name).cost(size, RATES) for size in (1 << 20, 1 << 32))
        assert small.memory_bytes <= large.memory_bytes
        assert small.start_s + small.step_s <= large.start_s + large.step_s
        assert large.start_s + large.step_s > 1, "four gigabytes must come from the disk at some time"


def test_resident_takes_memory_and_a_start_mapped_neither_until_memory_is_short() -> None:
    assert Resident().cost(1 << 29, RATES).memory_bytes == 1 << 29
    assert Resident().cost(1 << 29, RATES).start_s == pytest.approx(0.537, rel=0.01)
    assert Mapped().cost(1 << 29, RATES).step_s == 0
    assert Mapped().cost(1 << 31, RATES).step_s == pytest.approx(2.147, rel=0.01)


def test_resident_weights_without_room_are_refused_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "free_bytes", lambda: SIZE - 1)
    with pytest.raises(Infeasible, match=r"take 0\.02 GiB, 0\.02 GiB are free; set --residency mapped"):
        Resident().hold(Packed(folder=None))


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
class TestNativeRunner:
    spec = tiny_spec()

    def load(self, residency: WeightResidency | None, folder: pathlib.Path | None) -> NativeRunner:
        cache = None if folder is None else PackedCache(folder=folder, identity="w")
        weights = random_weights(self.spec, "Q8_0")
        options: dict[str, Any] = {"num_blocks": 8, "threads": 1, "kernels": HERE[0]}
        return NativeRunner.load(self.spec, weights, cache=cache, residency=residency, **options)

    @pytest.mark.row("mm-mmap", "mechanism")
    def test_logits_do_not_depend_on_where_weights_lie(self, tmp_path: pathlib.Path) -> None:
        tokens = list(range(20))
        expected = self.load(None, None).logits(whole(tokens))
        for name in known("residency"):
            for _ in range(2):
                runner = self.load(strategy(name), tmp_path)
                np.testing.assert_array_equal(runner.logits(whole(tokens)), expected)
                assert runner.weights_decision is not None
                assert runner.weights_decision.policy == name
        assert runner.weights_found

    def test_unasked_it_maps_the_packed_file(self, tmp_path: pathlib.Path) -> None:
        runner = self.load(None, tmp_path)
        assert runner.weights_decision is not None
        assert runner.weights_decision.chosen == "mapped"


class TestSetting:
    def test_a_need_that_is_not_met_is_refused(self) -> None:
        with pytest.raises(Incompatible, match="computes; set --residency resident, or --kernels auto"):
            runners._check_packed_file("mapped", "torch", pathlib.Path("x"))
        with pytest.raises(Incompatible, match="needs a folder for packed weights"):
            runners._check_packed_file("mapped", "native", None)

    def test_the_setting_reaches_the_runner(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, smollm2_path: pathlib.Path
    ) -> None:
        from pentad.execution.scheduling import EngineLimits
        from pentad.model.loading import open_model

        seen: list[HeldWeights] = []
        hold = Resident.hold

        def spied(self: Resident, weights: Any) -> HeldWeights:
            seen.append(hold(self, weights))
            return seen[-1]

        monkeypatch.setattr(Resident, "hold", spied)
        files = open_model(smollm2_path, name="m")
        settings = EngineSettings(residency=Choice(name="resident"), kv_bytes=1 << 22)
        runner = runners.load_runner(files, settings, EngineLimits(), packed_folder=tmp_path)
        runner.close()
        files.close()
        assert [held.mapped_bytes for held in seen] == [0]
