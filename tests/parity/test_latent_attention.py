"""Latent attention: DeepSeek against the reference code, both ways of it, its cache."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from expert_models import TinyModel, V, open_folder, open_gguf, reference, runner_of, save_folder, save_gguf
from pentad.errors import Incompatible
from pentad.execution.mixers import LatentAttention
from pentad.execution.positions import Rope
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.latent import expands
from pentad.execution.torch.runner import TorchRunner
from ragged_batches import check_cut_sequences, check_mixed_step, ragged

L = 3
SIZES: dict[str, Any] = {
    "first_k_dense_replace": L,
    "num_attention_heads": 4,
    "kv_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "num_key_value_heads": 4,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
}
EXPERTS = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "n_shared_experts": 2,
    "routed_scaling_factor": 1.5,
}
GROUPS = {"n_group": 4, "topk_group": 2}
METADATA = {
    "attention.key_length_mla": 24,
    "attention.value_length_mla": 12,
    "attention.kv_lora_rank": 24,
    "rope.dimension_count": 8,
    "leading_dense_block_count": L,
}
YARN_METADATA = {
    "attention.q_lora_rank": 20,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 128,
    "rope.scaling.yarn_log_multiplier": 0.07,
}
EXPERT_METADATA = {
    "leading_dense_block_count": 1,
    "expert_count": 8,
    "expert_used_count": 3,
    "expert_feed_forward_length": 32,
    "expert_shared_count": 2,
    "expert_weights_scale": 1.5,
}
CASES = {
    "v2-lite": TinyModel(
        config="DeepseekV2",
        sizes=SIZES | EXPERTS,
        without=("q_lora_rank",),
        arch="deepseek2",
        metadata=METADATA | EXPERT_METADATA,
    ),
    "v2": TinyModel(
        config="DeepseekV2",
        sizes=SIZES
        | EXPERTS
        | GROUPS
        | {
            "q_lora_rank": 20,
            "topk_method": "group_limited_greedy",
            "rope_parameters": YARN | {"mscale": 0.7},
        },
        arch="deepseek2",
        metadata=METADATA
        | YARN_METADATA
        | EXPERT_METADATA
        | {"expert_group_count": 4, "expert_group_used_count": 2},
    ),
    "v3-dense": TinyModel(
        config="DeepseekV3",
        sizes=SIZES | {"q_lora_rank": 20, "rope_parameters": YARN | {"mscale": 0.7}},
        arch="deepseek2",
        metadata=METADATA | YARN_METADATA,
    ),
    "v3": TinyModel(
        config="DeepseekV3",
        sizes=SIZES | EXPERTS | GROUPS | {"q_lora_rank": 20, "rope_parameters": YARN | {"mscale": 0.7}},
        arch="deepseek2",
        metadata=METADATA
        | YARN_METADATA
        | EXPERT_METADATA
        | {"expert_gating_func": 2, "expert_weights_norm": True}
        | {"expert_group_count": 4, "expert_group_used_count": 2},
    ),
}
Loaded = tuple[Any, TorchRunner, TorchRunner]


@pytest.fixture(scope="module", params=CASES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The reference, and our runners of its folder and of its GGUF file."""
    tiny, folder = CASES[request.param], tmp_path_factory.mktemp("model")
    model = tiny.build()
    ours = runner_of(*open_folder(save_folder(model, folder)))
    return model, ours, runner_of(*open_gguf(save_gguf(model, tiny, folder, change=split_ups)))


def split_ups(name: str, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What makes keys and values stands apart in a GGUF file, that of the keys transposed."""
    if "kv_b_proj" not in name:
        yield name.replace("correction_bias", "correction.bias"), values
        return
    heads = values.reshape(SIZES["num_attention_heads"], -1, values.shape[-1])
    yield name.replace("kv_b", "k_b"), np.ascontiguousarray(heads[:, :16].swapaxes(1, 2))
    yield name.replace("kv_b", "v_b"), heads[:, 16:]


def test_another_magnitude_of_what_is_turned_is_read(tmp_path: pathlib.Path) -> None:
    """Rotated numbers grow by one weight, scores by another."""
    tiny = dataclasses.replace(CASES["v3-dense"], sizes=SIZES | {"q_lora_rank": 20, "rope_parameters": YARN})
    model = tiny.build()
    runner = runner_of(*open_folder(save_folder(model, tmp_path)))
    tokens = list(range(40))
    np.testing.assert_allclose(
        runner.logits(ragged([(tokens, 0, range(3))])), reference(model, tokens), atol=1e-3
    )


@pytest.mark.row("m-deepseek-v3", "mechanism", claims=(1,))
@pytest.mark.parametrize("file", [1, 2], ids=["folder", "gguf"])
def test_logits_equal_the_reference_whole_in_chunks_and_from_the_cache(loaded: Loaded, file: int) -> None:
    check_cut_sequences(loaded[file].logits, partial(reference, loaded[0]), V, 1e-3)


def test_a_sequence_gets_in_a_batch_what_it_gets_alone(loaded: Loaded) -> None:
    check_mixed_step(loaded[1].logits, partial(reference, loaded[0]), V, 1e-3)


@pytest.mark.row("m-deepseek-v3", "mechanism", claims=(2,))
@pytest.mark.row("cost-mla", "mechanism")
def test_a_block_holds_one_vector_and_one_rotated_key_per_token(loaded: Loaded) -> None:
    runner = loaded[1]
    assert runner.block_bytes == L * 16 * (24 + 8) * 4
    assert runner._open()[1].nbytes == runner.num_blocks * runner.block_bytes
    many = LatentAttention(heads=128, kv_rank=512, nope_dim=128, value_dim=128, rope=Rope(dim=64))
    assert many.kv_elements < 0.15 * many.heads * (many.key_dim + many.value_dim)


def test_both_ways_give_the_same_context_and_the_cheaper_one_is_taken(loaded: Loaded) -> None:
    """Chunks that are short absorb and long ones expand; each alone is what the other gives."""
    runner = loaded[1]
    record = runner.spec.blocks[0].mixer
    assert isinstance(record, LatentAttention)
    assert [n for n in (1, 33, 34, 90) if expands(record, n)] == [34, 90]
    tokens = np.random.default_rng(1).integers(0, V, 60).tolist()
    expanded = runner.logits(ragged([(tokens, 0, range(4))]))
    absorbed = [runner.logits(ragged([(tokens[i : i + 20], i, range(8, 12))])) for i in (0, 20, 40)]
    np.testing.assert_allclose(np.concatenate(absorbed), expanded, atol=2e-4)


def test_texts_end_to_end_are_computed_as_cached_ones(loaded: Loaded) -> None:
    """What training and calibration compute is what the runner computes."""
    runner = loaded[1]
    program, _ = runner._open()
    tokens = np.random.default_rng(2).integers(0, V, 30)
    with torch.inference_mode():
        attend = TextAttention(runner.spec, [15, 15])
        hidden = program.hidden(torch.from_numpy(tokens), torch.arange(15).repeat(2), attend)
        found = program.logits(hidden).numpy()
    expected = runner.logits(ragged([(tokens[:15].tolist(), 0, [0]), (tokens[15:].tolist(), 0, [1])]))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_counted_attention_is_refused_by_name(loaded: Loaded) -> None:
    spec = dataclasses.replace(loaded[1].spec, name="tiny")
    with pytest.raises(Incompatible, match="attention is not counted in model 'tiny'"):
        TorchRunner.load(spec, None, attention_scores=True)  # type: ignore[arg-type]
