"""Profiles: what is measured, how they are kept, and what is refused when read back."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from resource_samples import TINY, measured_device

from pentad.errors import Incompatible, InvalidRequest, UnknownName
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.form import ModelForm
from pentad.execution.probe import POINTS_BYTES
from pentad.resource import profile
from pentad.resource.calibration import StepLog, calibrate
from pentad.resource.cost import StepCost
from pentad.resource.profile import files, hardware, measuring
from pentad.resource.profile.synthetic import step_batch, time_step
from pentad.resource.step_shape import StepShape


class TestFiles:
    def test_a_saved_profile_is_read_back_equal(self, tmp_path: pathlib.Path) -> None:
        device = measured_device()
        path = profile.save(device, tmp_path / "deep" / "profile.json")
        assert profile.load(path) == device
        assert [file.name for file in path.parent.iterdir()] == ["profile.json"], "no temporary file stays"

    def test_the_default_path_lies_under_pentad_home(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PENTAD_HOME", str(tmp_path))
        assert profile.save(measured_device()) == tmp_path / "profile.json"
        assert profile.load() == profile.find("local") == measured_device()

    def test_without_a_profile_the_remedy_is_named(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PENTAD_HOME", str(tmp_path))
        with pytest.raises(InvalidRequest, match="run pentad profile"):
            profile.load()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"memory": []}, "it has no memory"),
            ({"memory": [{"name": "m", "capacity_bytes": 0, "read_bytes_per_s": 1}]}, "no size or no rate"),
            ({"flops_per_s": {"f32": -1}}, "not above 0"),
            ({"gemm_points": [{"m": 1}]}, "lacks m, n, k"),
            ({"bandwidth_by_working_set": [[2, 1.0], [1, 1.0]]}, "does not ascend"),
            ({"extra": {"step_overhead_s": -1}}, "below 0"),
            ({"ports": {"pcie": 0}}, "a port has a rate"),
            ({"sustained_fraction": 1.5}, "sustained_fraction is not above 0"),
            ({"reserved_bytes": 2**50}, "reserved_bytes leaves no memory"),
            ({"battery_j": -1}, "battery_j is not above 0"),
            ({"source": "guessed"}, "Invalid enum value 'guessed'"),
            ({"name": 3}, r"\$.name"),
        ],
        ids=str,
    )
    def test_impossible_contents_are_refused(
        self, tmp_path: pathlib.Path, change: dict[str, Any], message: str
    ) -> None:
        path = profile.save(measured_device(), tmp_path / "p.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(InvalidRequest, match=message):
            profile.load(path)

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\x00", b'{"name": "x"}'], ids=repr)
    def test_what_is_no_profile_is_refused(self, tmp_path: pathlib.Path, data: bytes) -> None:
        path = tmp_path / "p.json"
        path.write_bytes(data)
        with pytest.raises(InvalidRequest, match="is no device profile"):
            profile.load(path)

    def test_a_path_that_cannot_be_written_is_refused(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InvalidRequest, match="cannot write profile"):
            profile.save(measured_device(), tmp_path / "file" / "p.json")


class TestHardware:
    def test_this_machine_tells_something_plausible_of_itself(self, tmp_path: pathlib.Path) -> None:
        assert hardware.cores() >= 1
        assert hardware.memory_bytes() > 2**28
        assert [size for _, size in hardware.cache_bytes()] == sorted(s for _, s in hardware.cache_bytes())
        assert hardware.numpy_read_bytes_per_s(1 << 16) > 1e8
        assert hardware.numpy_flops_per_s(64) > 1e7
        tier = hardware.disk(tmp_path, 1 << 20)
        assert tier.read_bytes_per_s > 0
        assert tier.write_bytes_per_s is not None
        assert list(tmp_path.iterdir()) == []

    def test_memory_is_bounded_by_the_control_group(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        installed = hardware.memory_bytes()
        for text, expected in (("1000000\n", 1_000_000), ("max\n", None)):
            limit = tmp_path / "memory.max"
            limit.write_text(text)
            monkeypatch.setattr(hardware, "_CGROUP_LIMIT", limit)
            assert hardware.memory_bytes() == expected or expected is None
        assert installed > 1_000_000

    def test_instruction_sets_come_from_the_system(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = tmp_path / "cpuinfo"
        info.write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx2 avx512f xsave\n")
        monkeypatch.setattr(hardware, "_CPUINFO", info)
        assert hardware.isa() == ("sse4_2", "avx2", "avx512f")
        monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "none")
        assert hardware.isa() == ()


class FakeRunner:
    """A device whose steps take no time; remembers them."""

    block_size = 16
    spec = TINY

    def __init__(self, num_blocks: int = 600) -> None:
        self.num_blocks = num_blocks
        self.seen: list[RaggedBatch] = []

    def step(self, batch: RaggedBatch, rows: list[SampleRow]) -> list[Drawn]:
        assert len(rows) == len(batch.logit_rows)
        assert batch.slots.max() < self.num_blocks * self.block_size
        self.seen.append(batch)
        return [Drawn(token=0)] * len(rows)

    def close(self) -> None: ...


class FakeProbe:
    """Kernels of two precisions, the wider one half as fast."""

    kernels = "torch"
    form = ModelForm()
    rates: Mapping[float, str] = {16: "bf16"}
    other_rates: Mapping[float, str] = {32: "f32"}
    dense_attention = True
    prompts_apart = False
    launch_bound = True
    heads_differ = True

    def stream_read_bytes_per_s(self, size: int, repeats: int = 5) -> float:
        return 1e10 if size > 1 << 20 else 5e10

    def gemm_seconds(
        self, rows: Sequence[tuple[int, int]], n: int, k: int, bits: float, repeats: int = 5
    ) -> list[float]:
        return [1e-6 + m * n * k * bits**2 * 1e-14 for m, _ in rows]

    def load(self, spec: Any, weights: Any, *, num_blocks: int) -> FakeRunner:
        assert set(weights.names()) >= {"embed", "final_norm", "layers.0.q"}
        return FakeRunner()


class FakePacked(FakeProbe):
    """Kernels on packed weights in two forms, with attention that pads nothing."""

    kernels = "amx"
    form = ModelForm(weight_bits=8.5)
    rates: Mapping[float, str] = {8.5: "int8", 5.0: "int4"}
    other_rates: Mapping[float, str] = {}
    dense_attention = False
    prompts_apart = True
    launch_bound = False
    heads_differ = False


TINY_EFFORT = measuring.Effort(
    working_sets_bytes=(1 << 16, 1 << 22),
    matrices=((64, 64), (128, 64)),
    rows=(1, 8, 100),
    rows_for_largest=8,
    repeats=1,
    disk_bytes=1 << 20,
    loopback=False,
)


class TestMeasure:
    @pytest.fixture
    def fakes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measuring, "open_probe", lambda kernels, tell: FakeProbe())

    @pytest.mark.row("prof-cpu", "mechanism")
    @pytest.mark.usefixtures("fakes")
    def test_everything_is_measured_through_the_runner_and_its_probe(self, tmp_path: pathlib.Path) -> None:
        told: list[str] = []
        found = profile.measure(told.append, effort=dataclasses.replace(TINY_EFFORT, folder=tmp_path))
        assert found.source == "measured"
        assert found.bandwidth_by_working_set == ((1 << 16, 5e10), (1 << 22, 1e10))
        assert found.memory[-1].name == "disk"
        assert found.memory[-2].read_bytes_per_s == 1e10
        plain = [p for p in found.gemm_points if "tied_head" not in p]
        far = [p for p in plain if p["among_bytes"] == POINTS_BYTES[-1]]
        assert [(p["m"], p["n"]) for p in far] == [(1, 64), (8, 64), (100, 64), (1, 128), (8, 128)]
        near = [p for p in plain if p["among_bytes"] == POINTS_BYTES[0]]
        assert [(p["m"], p["n"]) for p in near] == [(1, 64), (8, 64), (1, 128), (8, 128)]
        assert {p["m"] for p in found.gemm_points if "tied_head" in p} == {1, 2, 4, 8, 16, 32}
        assert found.flops_per_s["bf16"] > found.flops_per_s["f32"]
        assert found.extra["software_bits"] == 16
        assert any("made-up model" in line for line in told)
        files.check(found)
        assert profile.load(profile.save(found, tmp_path / "p.json")) == found

    def test_packed_forms_are_measured_each_and_the_kernels_named(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(measuring, "open_probe", lambda kernels, tell: FakePacked())
        found = profile.measure(effort=dataclasses.replace(TINY_EFFORT, folder=tmp_path))
        assert found.kernels == "amx"
        assert {p["bits"] for p in found.gemm_points} == {8.5, 5.0}
        assert not any("tied_head" in p for p in found.gemm_points)
        assert {"int8", "int4", "f32"} <= set(found.flops_per_s), "attention needs a rate of its own"
        assert found.extra["dense_attention"] == 0
        assert found.extra["prompts_apart"] == 1
        assert found.extra["software_bits"] == 16
        decode = StepShape.decode(4, 100)
        for form in (ModelForm(weight_bits=5), ModelForm(weight_bits=5.8, head_bits=9)):
            assert StepCost(profile=found, spec=TINY, form=form).seconds(decode) > 0

    @pytest.mark.usefixtures("fakes")
    def test_an_unwritable_disk_is_reported_and_left_out(self, tmp_path: pathlib.Path) -> None:
        told: list[str] = []
        effort = dataclasses.replace(TINY_EFFORT, steps=False, folder=tmp_path / "none")
        found = profile.measure(told.append, effort=effort)
        assert all(tier.name != "disk" for tier in found.memory)
        assert any(line.startswith("no disk rates") for line in told)

    def test_without_any_runner_numpy_measures_the_bandwidth(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(family: str, name: str) -> Any:
            raise ModuleNotFoundError("No module named 'torch'")

        monkeypatch.setattr(measuring, "load", missing)
        monkeypatch.setattr(measuring, "built", tuple)
        told: list[str] = []
        found = profile.measure(told.append, effort=dataclasses.replace(TINY_EFFORT, folder=tmp_path))
        assert found.gemm_points == ()
        assert all(rate > 1e8 for _, rate in found.bandwidth_by_working_set)
        assert any("nothing computes models here" in line for line in told)
        assert found.kernels is None

    def test_a_made_up_step_is_a_valid_batch(self) -> None:
        batch = step_batch([(1, 33), (20, 50)], num_blocks=16)
        assert batch.block_tables.tolist()[0][3:] == [-1]
        assert len(set(batch.slots.tolist())) == 21, "no two tokens write the same slot"
        assert batch.positions.tolist() == [32, *range(30, 50)]
        shape, seconds = time_step(FakeRunner(), [(1, 33), (20, 50)], repeats=3)  # type: ignore[arg-type]
        assert (shape.tokens, shape.rows) == (21, 2)
        assert seconds >= 0


class TestCalibration:
    @pytest.mark.parametrize("num_blocks", [10, 11, 37, 600])
    def test_the_steps_fit_the_runner_and_the_predictor_itself_stays_as_it_was(self, num_blocks: int) -> None:
        cost = StepCost(profile=measured_device(), spec=TINY)
        runner = FakeRunner(num_blocks)
        scaled = calibrate(cost, runner, repeats=1)  # type: ignore[arg-type]
        assert scaled.calibration.steps == 8
        assert len(runner.seen) >= 8 * 2, "one step before each timed one"
        assert max(len(batch.context_lens) for batch in runner.seen) == 8
        assert cost.calibration.steps == 0

    def test_a_log_times_steps_up_to_the_next_unless_the_engine_had_none(self) -> None:
        # Each step takes 4 ms; the second follows after 1 ms, the third after a pause.
        instants = iter([0.0, 0.004, 0.005, 0.009, 2.0, 2.004])
        runner = FakeRunner()
        log = StepLog(runner, lambda: next(instants))  # type: ignore[arg-type]
        for tokens in (1, 2, 3):
            log.step(step_batch([(tokens, tokens)], 16), [SampleRow()])
        assert [(shape.tokens, seconds) for shape, seconds in log.measured()] == [
            (1, pytest.approx(0.005)),
            (2, pytest.approx(0.004)),
        ]
        assert len(runner.seen) == 3
        assert log.block_size == runner.block_size

    def test_a_runner_with_hardly_any_blocks_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 10 KV blocks, the runner has 9"):
            calibrate(StepCost(profile=measured_device(), spec=TINY), FakeRunner(9))  # type: ignore[arg-type]


def test_kernels_asked_for_by_name_are_measured_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with pytest.raises(UnknownName, match="unknown kernels 'abacus'"):
        measuring.open_probe("abacus", told.append)
    monkeypatch.setattr("pentad.execution.native.probe.built", tuple)
    with pytest.raises(Incompatible, match="'portable' kernels are not installed"):
        measuring.open_probe("portable", told.append)
