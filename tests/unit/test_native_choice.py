"""Which kernels a machine gets, and which models they take: pure functions and their errors."""

from __future__ import annotations

import ctypes
import dataclasses
import pathlib
from typing import Any

import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.errors import Incompatible, UnknownName
from pentad.execution.native import structs
from pentad.execution.native.choice import (
    CHOICES,
    RunnerChoice,
    choose_kernels,
    choose_runner,
    unsupported_geometry,
)
from pentad.execution.native.library import NEEDS, built, cpu_flags, open_library, usable
from pentad.execution.native.runner import NativeRunner
from pentad.execution.native.sampling import RESULT, ROW
from pentad.execution.spec import Rope

SKYLAKE = {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
ICE_LAKE = SKYLAKE | {"avx512_vnni"}
ALDER_LAKE = {"avx2", "fma", "f16c", "avx_vnni"}
ZEN4 = ICE_LAKE | {"avx512_bf16"}
SAPPHIRE_RAPIDS = ZEN4 | {"avx_vnni", "amx_tile", "amx_bf16", "amx_int8"}
GRAVITON = {"asimd", "asimddp", "fphp", "asimdhp"}
X86 = ("amx", "avx512", "avx512vnni", "avxvnni", "avx2", "portable")


@pytest.mark.parametrize(
    ("flags", "found", "first"),
    [
        (SAPPHIRE_RAPIDS, X86, "amx"),
        (ZEN4, X86, "avx512"),
        (ICE_LAKE, X86, "avx512vnni"),
        (ALDER_LAKE, X86, "avxvnni"),
        (SKYLAKE, X86, "avx2"),
        ({"sse2"}, X86, "portable"),
        (set(), X86, "portable"),
        (SAPPHIRE_RAPIDS, ("avx2", "portable"), "avx2"),
        (GRAVITON, ("neon", "portable"), "neon"),
        ({"asimd"}, ("neon", "portable"), "portable"),
    ],
)
def test_the_fastest_library_that_the_cpu_runs_is_taken(
    flags: set[str], found: tuple[str, ...], first: str
) -> None:
    assert choose_kernels("auto", built=found, flags=flags) == first
    assert usable(flags, found)[0] == first
    assert usable(flags, found)[-1] == "portable"


def test_a_library_that_the_cpu_cannot_run_is_refused_with_those_it_can() -> None:
    with pytest.raises(Incompatible, match="'amx' kernels are not for this CPU; possible: auto, avx2, po"):
        choose_kernels("amx", built=X86, flags=SKYLAKE)
    with pytest.raises(Incompatible, match="'neon' kernels are not installed; possible: auto, amx, avx512"):
        choose_kernels("neon", built=X86, flags=SAPPHIRE_RAPIDS)


def test_without_libraries_the_remedy_is_a_compiler_or_pytorch() -> None:
    message = r"no native kernels are installed; install a C.*20 compiler .* or choose --kernels torch"
    with pytest.raises(Incompatible, match=message):
        choose_kernels("auto", built=(), flags=SAPPHIRE_RAPIDS)
    with pytest.raises(Incompatible, match=r"none of the installed native kernels \(neon\) are for this CPU"):
        choose_kernels("auto", built=("neon",), flags=SKYLAKE)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"unknown kernels 'sse9'; known: auto, amx, .*, torch"):
        choose_kernels("sse9", built=X86, flags=SKYLAKE)


def resolved(asked: str = "auto", unsupported: str | None = None, **changes: Any) -> RunnerChoice:
    settings: dict[str, Any] = {"model": "tiny", "dtype": "auto", "built": X86, "flags": ZEN4}
    return choose_runner(asked, unsupported, **(settings | changes))


def test_auto_takes_native_kernels_and_says_what_else_was_possible() -> None:
    choice = resolved()
    assert (choice.runner, choice.kernels) == ("native", "avx512")
    decision = choice.decision
    assert (decision.policy, decision.chosen, decision.constraint) == ("kernels", "avx512", None)
    names = [name for name, _ in decision.candidates]
    assert names == ["avx512", "avx512vnni", "avx2", "portable", "torch"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"asked": "torch"}, "the setting kernels asks for it"),
        ({"unsupported": "it has layer norms"}, "it has layer norms"),
        ({"dtype": "float32"}, "the setting weight_dtype is float32"),
        ({"built": ()}, "no native kernels are installed"),
    ],
)
def test_auto_falls_back_to_pytorch_and_says_why(changes: dict[str, Any], why: str) -> None:
    choice = resolved(**changes)
    assert (choice.runner, choice.kernels, choice.decision.chosen) == ("torch", None, "torch")
    assert choice.decision.constraint == why


def test_kernels_asked_for_by_name_never_fall_back() -> None:
    assert resolved("avx2").kernels == "avx2"
    with pytest.raises(Incompatible, match="'tiny' cannot run on the native kernels: it has layer norms"):
        resolved("avx2", "it has layer norms")
    with pytest.raises(Incompatible, match="'amx' kernels are not for this CPU"):
        resolved("amx")


def test_a_gpu_that_is_asked_for_computes_whatever_the_kernels_could() -> None:
    choice = resolved(device="cuda:1")
    assert (choice.runner, choice.kernels, choice.device) == ("torch", None, "cuda:1")
    assert choice.decision.constraint == "the setting device is cuda:1"
    assert resolved("torch", device="cuda").device == "cuda"
    with pytest.raises(Incompatible, match="'avx2' compute on the CPU, but device is 'cuda'; set kernels"):
        resolved("avx2", device="cuda")


def test_the_native_kernels_compute_on_the_cpu_and_pytorch_where_it_may() -> None:
    assert resolved(device="auto").device == "cpu"
    assert resolved(device="auto", unsupported="it has layer norms").device == "auto"
    assert resolved(device="cpu", unsupported="it has layer norms").device == "cpu"


def test_the_setting_knows_every_instruction_set() -> None:
    from pentad.application.config import EngineSettings

    values = EngineSettings.model_json_schema()["properties"]["kernels"]["enum"]
    assert tuple(values) == CHOICES == ("auto", *NEEDS, "torch")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"causal": False}, "it is an encoder"),
        ({"token_types": 2}, "it has token types"),
        ({"head_dim": 80}, "its head size 80 is not a multiple of 32 up to 256"),
        ({"head_dim": 512}, "its head size 512 is not"),
        ({"width": 80}, "its width 80 is not a multiple of 32"),
        ({"ffn_width": 130}, "its feed-forward width 130 is not a multiple of 32"),
        ({"positions": Rope(dim=128)}, "it turns 128 of 64 elements of a head"),
    ],
)
def test_what_the_kernels_cannot_do_is_named(changes: dict[str, Any], reason: str) -> None:
    spec = tiny_spec(**changes)
    assert (unsupported_geometry(spec) or "").startswith(reason)
    with pytest.raises(Incompatible, match=r"cannot run on the native kernels.*choose --kernels torch"):
        NativeRunner.load(spec, random_weights(tiny_spec(), "F32"), num_blocks=1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"heads": 14, "width": 896, "ffn_width": 4864},
        {"heads": 4, "kv_heads": 1, "head_dim": 256},
        {"biases": frozenset({"qkv"}), "tied_head": True},
        {"window": 7, "window_layers": (1,)},
        {"qk_norm": True},
        {"positions": Rope(dim=32, pairing="interleaved")},
    ],
)
def test_a_swiglu_decoder_with_rotary_positions_is_taken(changes: dict[str, Any]) -> None:
    assert unsupported_geometry(tiny_spec(**changes)) is None


def test_a_tensor_in_an_unknown_format_is_named() -> None:
    weights = random_weights(tiny_spec(), "Q8_0")
    assert NativeRunner.supports(tiny_spec(), weights) is None
    odd = dataclasses.replace(weights.tensors["layers.1.up"], format="Q1_Z")  # type: ignore[arg-type]
    changed = dataclasses.replace(weights, tensors={**weights.tensors, "layers.1.up": odd})
    assert NativeRunner.supports(tiny_spec(), changed) == "its tensor 'layers.1.up' is stored as Q1_Z"


def test_rows_are_written_as_the_structures_lie_in_memory() -> None:
    assert ROW.size == ctypes.sizeof(structs.DrawRow)
    assert RESULT.size == ctypes.sizeof(structs.DrawnRow)
    assert structs.DrawRow.mask.offset == 72
    assert structs.DrawRow.top_k.offset == 92
    assert structs.DrawnRow.logprob.offset == 16


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
@pytest.mark.parametrize("name", HERE)
def test_every_library_here_loads_and_agrees_on_the_interface(name: str) -> None:
    library = open_library(name)
    assert library.functions.pentad_interface() == structs.INTERFACE
    for which, struct in enumerate(structs.STRUCTS):
        assert library.functions.pentad_struct_bytes(which) == ctypes.sizeof(struct)
    assert library.functions.pentad_struct_bytes(len(structs.STRUCTS)) == -1
    assert library.layout == open_library("portable").layout


def test_the_portable_library_is_built_wherever_any_is_and_always_usable() -> None:
    assert not built() or "portable" in built()
    assert not built() or HERE[-1] == "portable"


def test_the_cpu_tells_its_flags() -> None:
    assert cpu_flags()


def test_a_file_that_is_no_library_is_refused_with_the_remedy(tmp_path: pathlib.Path) -> None:
    (tmp_path / "libpentad_avx2.so").write_bytes(b"not a library")
    assert built(tmp_path) == ("avx2",)
    with pytest.raises(Incompatible, match=r"'avx2' kernels cannot be loaded: .* run scripts/setup"):
        open_library("avx2", tmp_path)


def test_a_library_of_another_version_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not HERE:
        pytest.skip("no native kernels are built")
    monkeypatch.setattr("pentad.execution.native.library.INTERFACE", structs.INTERFACE + 1)
    with pytest.raises(Incompatible, match=r"'portable' kernels in .* are of another version; run scripts/s"):
        open_library("portable")
