"""What the profiler learns from the native kernels: forms, products, reads, and who is asked."""

from __future__ import annotations

import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.errors import InvalidRequest
from pentad.execution.form import ModelForm
from pentad.execution.native.library import open_library
from pentad.execution.native.probe import NativeProbe
from pentad.execution.native.runner import NativeRunner
from pentad.execution.native.structs import FORMATS, PACKED_BITS
from pentad.registry import load


@pytest.mark.parametrize("format", FORMATS)
def test_the_bits_of_a_packed_weight_are_those_that_the_library_takes(format: str) -> None:
    functions = open_library(HERE[-1]).functions
    assert functions.pentad_packed_bytes(FORMATS[format], 32, 512) * 8 == PACKED_BITS[format] * 32 * 512


def test_a_model_is_held_in_the_bits_of_its_formats() -> None:
    spec = tiny_spec()
    narrow, wide = random_weights(spec, "Q4_1"), random_weights(spec, "Q6_K")
    assert NativeRunner.form_of(spec, narrow) == ModelForm(weight_bits=5.0, head_bits=5.0, kv_bits=16)
    mixed = type(narrow)({**narrow.tensors, "head": wide.tensors["head"]})
    assert NativeRunner.form_of(spec, mixed) == ModelForm(weight_bits=5.0, head_bits=7.0, kv_bits=16)
    runner = NativeRunner.load(spec, mixed, num_blocks=4, kernels=HERE[-1])
    assert runner.form == NativeRunner.form_of(spec, mixed)
    runner.close()


@pytest.mark.parametrize("kernels", HERE)
def test_reads_take_time_however_the_memory_lies(kernels: str) -> None:
    probe = NativeProbe(kernels)
    for more in range(0, 512, 64):
        # Slower where another program holds the core, faster than any cache only if nothing was read.
        assert 1e5 < probe.stream_read_bytes_per_s((1 << 14) + more, repeats=1) < 1e13


@pytest.mark.parametrize("kernels", sorted({HERE[0], HERE[-1]}))
def test_products_take_time(kernels: str) -> None:
    probe = load("probe", "native")(kernels)
    assert probe.kernels == kernels
    assert probe.form.weight_bits in probe.rates
    for bits in probe.rates:
        few, many = probe.gemm_seconds([(1, 1 << 24), (13, 1 << 20)], 256, 2048, bits, repeats=1)
        assert 0 < few < 1
        assert 0 < many < 1


def test_made_up_models_run_on_the_kernels_asked_for() -> None:
    spec = tiny_spec()
    runner = NativeProbe(HERE[-1]).load(spec, random_weights(spec, "F32"), num_blocks=4)
    assert runner.kernels == HERE[-1]
    assert runner.form.weight_bits == 8.5
    runner.close()


def test_impossible_measurements_are_refused() -> None:
    probe = NativeProbe(HERE[-1])
    with pytest.raises(InvalidRequest, match=r"weights of 3 bits are not measured; known: 8\.5, 5"):
        probe.gemm_seconds([(1, 1 << 20)], 64, 64, 3)
    for m, n, k in ((0, 64, 64), (1, 60, 64), (1, 64, 48)):
        with pytest.raises(InvalidRequest, match="cannot be measured"):
            probe.gemm_seconds([(1, 1 << 20), (m, 1 << 20)], n, k, 5.0)
    with pytest.raises(InvalidRequest, match="working_set_bytes is 3"):
        probe.stream_read_bytes_per_s(3)
