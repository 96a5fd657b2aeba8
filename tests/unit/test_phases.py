"""One choice per phase: what is declared, which pairs are refused and how, and what a stack is worth."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pentad.application.config import EngineSettings
from pentad.application.config_loading import load_settings
from pentad.application.phases import (
    cache_form_part,
    check_phases,
    draft_part,
    kernel_part,
    known_parts,
    policy_part,
    processes_part,
    residency_part,
    weight_part,
)
from pentad.choice import Choice
from pentad.errors import Incompatible
from pentad.execution.kernels.base import Kernel
from pentad.model.composition import Part, Work, clash, clashes, clashes_among, compose
from pentad.resource.profile.catalogue import find
from published_specs import llama_3_8b

pytestmark = pytest.mark.row("phase-coordinator", "mechanism", claims=(2,))

FORBIDDEN: list[tuple[dict[str, Any], str, str]] = [
    ({"kernels": "portable", "weight_dtype": "float32"}, "weights in a format of choice", "kernels to auto"),
    ({"kernels": "torch", "kv_dtype": "int8"}, "KV cache of codes", "kv_dtype to auto"),
    ({"weight_dtype": "bfloat16", "kv_dtype": "int8"}, "'torch' gives no KV cache", "weight_dtype to auto"),
    ({"kernels": "torch", "residency": "mapped"}, "weights in a packed file", "residency to resident"),
    ({"parallel": "tp=2", "kv_dtype": "int8"}, "sharing of a model", "parallel to null"),
    ({"parallel": "pp=2", "kv_dtype": "int8"}, "allows no KV cache", "kv_dtype to auto"),
    ({"parallel": "pp=2", "residency": "mapped"}, "allows no weights in a packed", "residency to resident"),
    ({"parallel": "pp=2,tp=2", "kernels": "portable"}, "sharing of a model", "parallel to null"),
    ({"parallel": "tp=2", "adapters": {"m:a": "a"}}, "allows no adapters", "adapters to none"),
    ({"kv_policy": "sinks", "speculation": "ngram"}, "allows no drafts", "speculation to none"),
    (
        {"kv_policy": "accumulated-attention", "kv_store_bytes": 1 << 24},
        "copied out",
        "kv_store_bytes to null",
    ),
    ({"backend": "llamacpp", "speculation": "ngram"}, "'llamacpp' gives no drafts", "backend to engine"),
    ({"backend": "llamacpp", "kv_policy": "sinks"}, "'llamacpp' gives no entries", "kv_policy to keep-all"),
]


@pytest.mark.parametrize(("chosen", "reason", "remedy"), FORBIDDEN)
def test_settings_of_phases_that_clash_name_both_the_reason_and_the_remedy(
    chosen: dict[str, Any], reason: str, remedy: str
) -> None:
    with pytest.raises(Incompatible, match=reason) as refused:
        load_settings({"models": "m", **chosen}, env={})
    assert remedy in str(refused.value.hint)
    assert refused.value.param in chosen
    undone = dict(chosen)
    undone.pop(remedy.partition(" ")[0])
    load_settings({"models": "m", **undone}, env={})


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"kv_dtype": "int8", "speculation": "ngram", "residency": "mapped"},
        {"weight_dtype": "float32", "kv_policy": "sinks", "kernels": "torch"},
        {"parallel": "tp=2", "weight_dtype": "bfloat16"},
        {"parallel": "pp=2", "kernels": "portable"},
        {"parallel": "pp=1+2", "weight_dtype": "float32"},
    ],
)
def test_settings_that_go_together_are_taken(chosen: dict[str, Any]) -> None:
    check_phases(EngineSettings.model_validate(chosen))


def test_the_matrix_is_symmetric_and_every_part_goes_with_some_kernels() -> None:
    parts = known_parts()
    computes = [part for part in parts if part.phase == "compute"]
    for one in parts:
        assert any(
            clash(one, kernel, computes) is None for kernel in computes if kernel.phase != one.phase
        ) or (one.phase == "compute")
        for other in parts:
            there, back = clash(one, other, computes), clash(other, one, computes)
            assert (there is None) == (back is None)


SPEC, DEVICE = llama_3_8b(), find("jetson-agx-orin-64gb")
WORK = Work(prompt_tokens=2000, answer_tokens=400)
NATIVE, TORCH = kernel_part("portable"), kernel_part("torch")
QUANTIZED = Part(phase="load", setting="models", name="int4", usual="the whole model", weight_bits=4.5)
DRAFTS = Part(
    phase="drafts",
    setting="speculation",
    name="ngram",
    needs=draft_part(Choice(name="ngram")).needs,
    tokens_per_step=2.0,
    drafted=4,
)


def test_a_coordinator_takes_one_choice_of_each_phase_and_predicts_them_together() -> None:
    found = compose(
        {
            "compute": [NATIVE, TORCH],
            "load": [QUANTIZED, weight_part("bfloat16")],
            "cache form": [cache_form_part()],
            "cache": [policy_part(Choice(name="sinks"))],
            "drafts": [DRAFTS],
            "processes": [processes_part("tp=2")],
        },
        WORK,
        SPEC,
        DEVICE,
    )
    names = {part.name for part in found.best.parts}
    assert {"int4", "int8", "ngram"} <= names, "each phase has its own gain"
    assert "sinks" not in names or "ngram" not in names
    assert found.joint_gain > 1.5
    product = 1.0
    plain = next(stack for stack in found.stacks if stack.parts == (NATIVE,))
    for part in found.best.parts[1:]:
        product *= plain.total_s / found.singles[f"{part.setting} {part.name}"].total_s
    assert plain.total_s / found.best.total_s != pytest.approx(product, rel=1e-3), "gains do not multiply"
    refused = {frozenset(part.name for part in each.parts) for each in found.refused}
    assert {frozenset({"sinks", "ngram"}), frozenset({"int8", "torch"})} <= refused
    exact = compose(
        {"compute": [TORCH], "drafts": [DRAFTS], "cache": [policy_part(Choice(name="sinks"))]},
        WORK,
        SPEC,
        DEVICE,
        exactness="lossless",
    )
    assert all(part.exactness == "lossless" for stack in exact.stacks for part in stack.parts)
    assert DRAFTS in exact.best.parts


def test_without_kernels_nothing_is_composed() -> None:
    with pytest.raises(ValueError, match="name the kernels"):
        compose({"drafts": [DRAFTS]}, WORK, SPEC, DEVICE)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(known_parts()), min_size=1, max_size=6))
def test_no_stack_that_a_coordinator_gives_holds_a_pair_of_the_matrix(drawn: list[Part]) -> None:
    choices: dict[Any, list[Part]] = {"compute": [NATIVE, TORCH]}
    for part in drawn:
        if part.phase != "compute" and part not in choices.setdefault(part.phase, []):
            choices[part.phase].append(part)
    found = compose(choices, WORK, SPEC, DEVICE)
    refused = {frozenset(each.parts) for each in found.refused}
    for stack in found.stacks:
        assert not clashes(stack.parts, [NATIVE, TORCH])
        assert not any(pair <= set(stack.parts) for pair in refused)
        assert len({part.phase for part in stack.parts}) == len(stack.parts)
    assert found.stacks == tuple(sorted(found.stacks, key=lambda stack: stack.total_s))


def test_every_kernel_declares_what_it_gives() -> None:
    from pentad import registry
    from pentad.choice import build

    for name in registry.known("kernel"):
        kernel: Kernel = build("kernel", Choice(name=name))
        assert kernel.gives
    assert not clashes_among([residency_part(Choice(name="resident"))], [NATIVE, TORCH])
