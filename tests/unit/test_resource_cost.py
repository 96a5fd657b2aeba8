"""Step shapes, matrix rates, the non-negative fit and the step cost, on profiles made for the test."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from resource_samples import GPU, LLAMA_1B, measured_device

from pentad.errors import Infeasible, InvalidRequest
from pentad.execution.device import DeviceProfile, MemoryTier
from pentad.resource.calibration import fit
from pentad.resource.cost import ModelForm, StepCost, chunks, products_of, software_units
from pentad.resource.fitting import non_negative_least_squares
from pentad.resource.matrices import MatrixRates, flops_per_s, main_memory, read_bytes_per_s
from pentad.resource.profile.software import fit_software, geometries
from pentad.resource.profile.synthetic import SyntheticWeights, step_batch
from pentad.resource.step_shape import CHUNK_TOKENS, StepShape


class TestShape:
    def test_a_batch_has_the_shape_of_its_sequences(self) -> None:
        batch = step_batch([(1, 100), (1, 60), (32, 32), (16, 48)], num_blocks=64)
        shape = StepShape.of(batch)
        assert (shape.tokens, shape.sequences, shape.rows) == (50, 4, 4)
        assert shape.slots == 160 + 32 + 48
        assert shape.padded_slots == 40  # where both decodes are taken at once
        assert shape.masked_pairs == 16 * 15 // 2  # of the chunk behind earlier context
        assert shape.decode_pairs == 160
        assert shape.chunk_pairs == 32 * 33 // 2 + 16 * 48 - 16 * 15 // 2
        assert shape.calls == 3
        assert shape.chunk_tokens == 32

    def test_decodes_of_very_different_contexts_are_attended_in_several_calls(self) -> None:
        shape = StepShape.from_sequences([(1, 1000), (1, 900), (1, 300), (1, 60), (1, 10)], rows=5)
        assert shape.calls == 3
        assert shape.slots == shape.decode_pairs == 2270
        assert shape.slots + shape.padded_slots == 2 * 1000 + 300 + 2 * 60

    def test_short_contexts_are_never_split(self) -> None:
        assert StepShape.from_sequences([(1, 64), (1, 2)], rows=2).calls == 1

    def test_shapes_add_up(self) -> None:
        both = StepShape.prefill(64) + StepShape.decode(3, 100)
        assert (both.tokens, both.sequences, both.rows, both.calls) == (67, 4, 4, 2)

    def test_chunks_cover_a_prompt_once(self) -> None:
        assert list(chunks(1000, 512)) == [(0, 512), (512, 488)]
        assert list(chunks(512, 512)) == [(0, 512)]


class TestMatrices:
    def test_measured_points_are_returned_and_interpolated_between(self) -> None:
        points = [
            {"m": m, "n": n, "k": 1000, "bits": 16, "seconds": m * n * 1e-9}
            for m in (1, 100)
            for n in (100, 10_000)
        ]
        rates = MatrixRates(dataclasses.replace(GPU, gemm_points=tuple(points)), 16, 1e9)
        assert rates.measured
        assert rates.seconds(100, 100, 1000) == pytest.approx(1e-5)
        assert rates.seconds(10, 1000, 1000) == pytest.approx(1e-5)  # both axes half way on logarithms

    def test_small_matrices_cost_a_launch_and_large_ones_grow_in_proportion(self) -> None:
        point = {"m": 1, "n": 100, "k": 100, "bits": 16, "seconds": 1e-5}
        rates = MatrixRates(dataclasses.replace(GPU, gemm_points=(point,)), 16, 1e9)
        assert rates.seconds(1, 5, 5) == pytest.approx(1e-5)
        assert rates.seconds(1, 200, 100) == pytest.approx(2e-5)
        assert rates.seconds(3, 200, 100) == pytest.approx(6e-5)

    def test_a_precision_between_two_measured_ones_takes_times_between_theirs(self) -> None:
        points = [{"m": 1, "n": 100, "k": 100, "bits": b, "seconds": b * 1e-6} for b in (5, 8.5, 16)]
        device = dataclasses.replace(GPU, gemm_points=tuple(points))

        def seconds(bits: float) -> float:
            return MatrixRates(device, bits, 1e9).seconds(1, 100, 100)

        assert [seconds(bits) for bits in (5, 6, 8.5, 16)] == pytest.approx([5e-6, 6e-6, 8.5e-6, 16e-6])
        assert seconds(4.5) == seconds(5), "a form of nearly the same bits stands for it"
        assert seconds(9) > seconds(8.5)
        assert not MatrixRates(device, 4, 1e9).measured
        assert not MatrixRates(device, 32, 1e9).measured

    def test_products_cost_what_they_do_in_a_working_set_of_the_models_size(self) -> None:
        point = {"m": 1, "n": 100, "k": 100, "bits": 16}
        near, far = ({"among_bytes": size, "seconds": s} for size, s in ((1e8, 1e-6), (4e8, 4e-6)))
        many = {"m": 100, "seconds": 1e-3, "among_bytes": 4e8}
        device = dataclasses.replace(
            GPU,
            gemm_points=(point | near, point | far, point | many),
            bandwidth_by_working_set=((10_000_000, 8e12), (100_000_000, 8e12), (1_600_000_000, 1e9)),
        )

        def seconds(working_set_bytes: float, m: int = 1) -> float:
            return MatrixRates(device, 16, working_set_bytes).seconds(m, 100, 100)

        assert [seconds(size) for size in (1e7, 1e8, 2e8, 4e8)] == pytest.approx([1e-6, 1e-6, 2e-6, 4e-6])
        assert seconds(1.6e9) > 4e-6, "further out, reading takes longer"
        assert seconds(1e8, m=100) == pytest.approx(1e-3), "not measured there: as in the largest"

    def test_points_of_another_precision_or_of_tied_heads_are_not_used(self) -> None:
        point = {"m": 1, "n": 100, "k": 100, "bits": 16, "seconds": 1.0}
        device = dataclasses.replace(GPU, gemm_points=(point, point | {"tied_head": 1, "seconds": 2.0}))
        assert not MatrixRates(device, 32, 1e9).measured
        assert MatrixRates(device, 16, 1e9).seconds(1, 100, 100) == pytest.approx(1.0)
        assert MatrixRates(device, 16, 1e9, tied_head=True).seconds(1, 100, 100) == pytest.approx(2.0)

    def test_without_points_the_roofline_takes_the_slower_of_reading_and_computing(self) -> None:
        device = dataclasses.replace(GPU, source="assumed")
        rates = MatrixRates(device, 16, 1e9)
        assert rates.seconds(1, 1000, 1000) == pytest.approx(2e6 / 1e12)
        assert rates.seconds(10_000, 1000, 1000) == pytest.approx(2e10 / 100e12)

    def test_published_peaks_are_not_taken_at_face_value(self) -> None:
        assert read_bytes_per_s(GPU, 1e9) < main_memory(GPU).read_bytes_per_s
        assert flops_per_s(GPU, 16) < GPU.flops_per_s["bf16"]

    def test_bandwidth_follows_the_working_set(self) -> None:
        device = measured_device()
        assert read_bytes_per_s(device, 1) == 4e10
        assert read_bytes_per_s(device, 1e12) == 1e10
        assert 1e10 < read_bytes_per_s(device, 3e7) < 4e10

    def test_a_missing_precision_is_served_by_a_wider_one_or_refused(self) -> None:
        f32_only = dataclasses.replace(GPU, source="measured", flops_per_s={"f32": 1e12})
        assert flops_per_s(f32_only, 4) == 1e12
        with pytest.raises(Infeasible, match=r"no compute rate for 16-bit weights \(its rates: none\)"):
            flops_per_s(dataclasses.replace(GPU, flops_per_s={}), 16)

    def test_the_disk_is_not_main_memory(self) -> None:
        tiers = (
            MemoryTier(name="main", capacity_bytes=8, read_bytes_per_s=2.0),
            MemoryTier(name="disk", capacity_bytes=9, read_bytes_per_s=1.0),
        )
        assert main_memory(dataclasses.replace(GPU, memory=tiers)).name == "main"
        with pytest.raises(Infeasible, match="has no memory"):
            main_memory(dataclasses.replace(GPU, memory=tiers[1:]))


class TestFit:
    @pytest.mark.parametrize("seed", range(5))
    def test_exact_non_negative_coefficients_are_found(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        scale = 10.0 ** draw.integers(-9, 9, 6)  # as different as bytes and layers are
        a, x = draw.random((30, 6)) * scale, draw.random(6) / scale
        x[seed] = 0.0
        assert non_negative_least_squares(a, a @ x) * scale == pytest.approx(x * scale, abs=1e-9)

    def test_a_negative_optimum_is_held_at_zero_and_the_rest_is_optimal(self) -> None:
        a = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
        found = non_negative_least_squares(a, np.array([3.0, 2.0, 1.0]))
        assert found == pytest.approx([2.0, 0.0])

    def test_a_column_without_data_gets_zero(self) -> None:
        assert non_negative_least_squares(np.array([[1.0, 0.0]]), np.array([2.0])) == pytest.approx(
            [2.0, 0.0]
        )


class TestStepCost:
    def test_weights_are_read_once_per_step_however_many_sequences_decode(self) -> None:
        cost = StepCost(profile=dataclasses.replace(GPU, source="assumed"), spec=LLAMA_1B)
        one = cost.seconds(StepShape.decode(1, 1))
        read = LLAMA_1B.parameters * 2 / 1e12
        assert one == pytest.approx(read, rel=0.01)
        assert cost.seconds(StepShape.decode(16, 1)) == pytest.approx(one, rel=0.01)

    def test_a_chunk_that_is_multiplied_apart_reads_the_weights_again(self) -> None:
        extra = {"prompts_apart": 1.0}
        apart = StepCost(profile=dataclasses.replace(GPU, source="assumed", extra=extra), spec=LLAMA_1B)
        decodes, chunk = StepShape.decode(8, 1), StepShape.prefill(CHUNK_TOKENS, rows=0)
        layers = dataclasses.replace(decodes, rows=0)
        assert apart.terms(layers + chunk)[0] == pytest.approx(apart.terms(layers)[0] + apart.terms(chunk)[0])
        short = StepShape.prefill(CHUNK_TOKENS - 1, rows=0)
        assert apart.terms(layers + short)[0] < 0.6 * (apart.terms(layers)[0] + apart.terms(short)[0])

    def test_a_stage_costs_its_share_of_layers_and_the_head_only_where_it_is(self) -> None:
        shape = StepShape.decode(1, 1)
        whole = StepCost(profile=GPU, spec=LLAMA_1B).seconds(shape)
        front = StepCost(profile=GPU, spec=LLAMA_1B, layers=range(8), head=False).seconds(shape)
        back = StepCost(profile=GPU, spec=LLAMA_1B, layers=range(8, 16)).seconds(shape)
        assert front + back == pytest.approx(whole)
        assert back > front

    def test_fewer_bits_make_decoding_faster(self) -> None:
        shape = StepShape.decode(1, 100)
        wide, narrow = (
            StepCost(profile=GPU, spec=LLAMA_1B, form=ModelForm(weight_bits=bits)).seconds(shape)
            for bits in (16, 4)
        )
        assert wide / narrow == pytest.approx(4, rel=0.05)

    def test_measured_software_costs_are_counted_per_unit(self) -> None:
        device = measured_device()
        plain = StepCost(profile=dataclasses.replace(device, extra=dict(device.extra)), spec=LLAMA_1B)
        shape = StepShape.decode(2, 50)
        units = software_units(LLAMA_1B)
        for name, (_, counted, count) in units.items():
            more = dataclasses.replace(device, extra={**device.extra, name: device.extra[name] + 1e-6})
            added = StepCost(profile=more, spec=LLAMA_1B).seconds(shape) - plain.seconds(shape)
            times = 1 if counted is None else getattr(shape, counted)
            assert added == pytest.approx(1e-6 * count * times, rel=1e-6), name

    def test_calibration_recovers_how_much_slower_a_term_is(self) -> None:
        cost = StepCost(profile=measured_device(), spec=LLAMA_1B)
        shapes = [StepShape.decode(n, c) for n in (1, 4, 8) for c in (30, 500, 2000)]
        shapes += [StepShape.prefill(n) for n in (16, 128, 512)]
        slower = [
            (shape, sum(f * t for f, t in zip((1.5, 2.0, 1.0, 1.2), cost.terms(shape), strict=True)))
            for shape in shapes
        ]
        fitted = fit(cost, slower)
        assert fitted.calibration.steps == len(shapes)
        assert fitted.calibration.error < 0.03
        for shape, seconds in slower:
            assert fitted.seconds(shape) == pytest.approx(seconds, rel=0.1)
        assert cost.calibration.factors == (1.0,) * 4, "the prediction itself stays uncalibrated"

    def test_calibration_learns_costs_that_the_profile_lacks(self) -> None:
        bare = StepCost(profile=dataclasses.replace(measured_device(), extra={}), spec=LLAMA_1B)
        shapes = [StepShape.decode(n, c) for n in (1, 3, 8, 16) for c in (30, 500, 2000)]
        shapes += [StepShape.prefill(n, cached=c) for n in (16, 64, 256) for c in (0, 700)]

        def true_seconds(shape: StepShape) -> float:
            return 2 * bare.seconds(shape) + 0.01 + 1e-3 * shape.tokens + 1e-7 * shape.chunk_pairs

        fitted = fit(bare, [(shape, true_seconds(shape)) for shape in shapes])
        for shape in (StepShape.decode(5, 300), StepShape.prefill(128) + StepShape.decode(4, 100)):
            assert fitted.seconds(shape) == pytest.approx(true_seconds(shape), rel=0.1)

    def test_time_lost_by_steps_that_were_held_up_is_spread_over_all(self) -> None:
        cost = StepCost(profile=measured_device(), spec=LLAMA_1B)
        steps = [(StepShape.decode(n, 100), cost.seconds(StepShape.decode(n, 100))) for n in range(1, 17)]
        held_up = [(shape, 10 * seconds) for shape, seconds in steps[:2]]
        fitted = fit(cost, steps * 5 + held_up)
        for shape, seconds in steps:
            assert fitted.seconds(shape) / seconds == pytest.approx(1 + 2 * 9 / 82, rel=0.05)

    def test_calibration_without_steps_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one measured step"):
            fit(StepCost(profile=GPU, spec=LLAMA_1B), [])

    def test_block_matrices_hold_all_parameters_of_a_layer_but_its_norms(self) -> None:
        held = sum(p.n * p.k * p.count for p in products_of(LLAMA_1B.blocks[0], LLAMA_1B.width))
        assert held == LLAMA_1B.layer_parameters(0, 1) - 2 * LLAMA_1B.width

    @pytest.mark.parametrize("bits", [0, 65])
    def test_impossible_precisions_are_refused(self, bits: int) -> None:
        with pytest.raises(InvalidRequest, match="weight_bits"):
            ModelForm(weight_bits=bits)


class TestSoftwareFit:
    @pytest.mark.row("prof-cpu", "mechanism")
    def test_costs_are_recovered_from_steps_that_they_generated(self) -> None:
        truth = measured_device()
        steps = []
        for spec in geometries():
            cost = StepCost(profile=truth, spec=spec)
            for sequences in (
                [(1, 32)],
                [(1, 1024)] * 8,
                [(256, 256)],
                [(256, 1280)],
                [(1, 200)] * 3 + [(9, 9)],
            ):
                shape = StepShape.from_sequences(sequences, rows=len(sequences))
                steps.append((spec, shape, cost.seconds(shape)))
        bare = dataclasses.replace(truth, extra={})
        found = fit_software(bare, steps, ModelForm())
        assert found["software_fit_error"] < 1e-6
        fitted = dataclasses.replace(truth, extra=found)
        for shape in (StepShape.decode(4, 300), StepShape.prefill(200)):
            assert StepCost(profile=fitted, spec=LLAMA_1B).seconds(shape) == pytest.approx(
                StepCost(profile=truth, spec=LLAMA_1B).seconds(shape), rel=0.02
            )

    def test_made_up_weights_have_every_tensor_of_a_decoder(self) -> None:
        spec = geometries()[0]
        weights = SyntheticWeights(spec)
        total = sum(int(np.prod(weights.tensor(name).shape)) for name in weights.names())
        assert total == spec.parameters
        tensor = weights.tensor("layers.0.gate")
        assert tensor.data.nbytes == 4 * tensor.shape[0] * tensor.shape[1]


def test_a_device_without_any_memory_cannot_be_costed() -> None:
    bare = DeviceProfile(name="bare", kind="cpu", source="assumed", memory=(), flops_per_s={"bf16": 1.0})
    with pytest.raises(Infeasible, match="'bare' has no memory"):
        StepCost(profile=bare, spec=LLAMA_1B).seconds(StepShape.decode(1, 1))
