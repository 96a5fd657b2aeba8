"""Families with routed experts: folders and GGUF files of tiny random weights against the reference code."""

from __future__ import annotations

import pathlib
from functools import partial
from typing import Any

import pytest

from expert_models import TinyModel, V, open_folder, open_gguf, reference, runner_of, save_folder, save_gguf
from pentad.execution.torch.runner import TorchRunner
from ragged_batches import check_cut_sequences, check_mixed_step

TOLERANCE = 1e-3
FAMILIES = {
    "mixtral": TinyModel(
        config="Mixtral",
        sizes={"num_local_experts": 5, "num_experts_per_tok": 2},
        arch="llama",
        metadata={"expert_count": 5, "expert_used_count": 2},
        rope_rows="interleaved",
    ),
    "qwen2-moe": TinyModel(
        config="Qwen2Moe",
        sizes={
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 64,
        },
        arch="qwen2moe",
        metadata={
            "expert_count": 6,
            "expert_used_count": 3,
            "expert_feed_forward_length": 32,
            "expert_shared_feed_forward_length": 64,
        },
    ),
    "qwen3-moe": TinyModel(
        config="Qwen3Moe",
        sizes={
            "num_experts": 7,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
            "head_dim": 32,
        },
        arch="qwen3moe",
        metadata={"expert_count": 7, "expert_used_count": 3, "expert_feed_forward_length": 32},
    ),
    "olmoe": TinyModel(
        config="Olmoe",
        sizes={"num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": False},
        arch="olmoe",
        metadata={"expert_count": 6, "expert_used_count": 2},
    ),
    "glm4-moe": TinyModel(
        config="Glm4Moe",
        sizes={
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 1.5,
            "use_qk_norm": True,
            "attention_bias": True,
            "head_dim": 16,
        },
        arch="glm4moe",
        metadata={
            "expert_count": 8,
            "expert_used_count": 3,
            "expert_feed_forward_length": 32,
            "expert_shared_count": 2,
            "leading_dense_block_count": 1,
            "expert_group_count": 4,
            "expert_group_used_count": 2,
            "expert_weights_scale": 1.5,
            "expert_weights_norm": True,
            "expert_gating_func": 2,
            "rope.dimension_count": 8,
        },
    ),
    "granite-moe": TinyModel(
        config="GraniteMoe",
        sizes={
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.1,
            "logits_scaling": 4.0,
        },
        arch="granitemoe",
        metadata={
            "expert_count": 6,
            "expert_used_count": 2,
            "embedding_scale": 3.0,
            "residual_scale": 0.5,
            "attention.scale": 0.1,
            "logit_scale": 4.0,
        },
        rope_rows="interleaved",
    ),
    "ernie-4.5-moe": TinyModel(
        config="Ernie4_5_Moe",
        sizes={
            "moe_num_experts": 6,
            "moe_k": 2,
            "moe_intermediate_size": 32,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 2,
            "tie_word_embeddings": False,
        },
        arch="ernie4_5-moe",
        metadata={
            "expert_count": 6,
            "expert_used_count": 2,
            "expert_feed_forward_length": 32,
            "expert_shared_count": 2,
            "leading_dense_block_count": 1,
        },
    ),
}
Loaded = tuple[Any, TorchRunner, TorchRunner]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The reference, and our runners of its folder and of its GGUF file."""
    tiny, folder = FAMILIES[request.param], tmp_path_factory.mktemp("model")
    model = tiny.build()
    files = open_folder(save_folder(model, folder)), open_gguf(save_gguf(model, tiny, folder))
    return model, runner_of(*files[0]), runner_of(*files[1])


@pytest.mark.parametrize("file", [1, 2], ids=["folder", "gguf"])
def test_logits_equal_the_reference_whole_in_chunks_and_from_the_cache(loaded: Loaded, file: int) -> None:
    check_cut_sequences(loaded[file].logits, partial(reference, loaded[0]), V, TOLERANCE)


@pytest.mark.parametrize("file", [1, 2], ids=["folder", "gguf"])
def test_a_sequence_gets_in_a_batch_what_it_gets_alone(loaded: Loaded, file: int) -> None:
    check_mixed_step(loaded[file].logits, partial(reference, loaded[0]), V, TOLERANCE)


def test_every_parameter_is_counted(loaded: Loaded) -> None:
    model, *runners = loaded
    published = sum(value.numel() for value in model.state_dict().values())
    assert [runner.spec.parameters for runner in runners] == [published, published]


@pytest.mark.parametrize("name", ["qwen3-moe", "qwen2-moe"])
def test_some_layers_may_stay_dense(name: str, tmp_path: pathlib.Path) -> None:
    tiny = FAMILIES[name]
    mixed = TinyModel(
        config=tiny.config,
        sizes={**tiny.sizes, "mlp_only_layers": [1]},
        arch=tiny.arch,
        metadata=tiny.metadata,
    )
    model = mixed.build()
    spec, weights = open_folder(save_folder(model, tmp_path))
    check_mixed_step(runner_of(spec, weights).logits, partial(reference, model), V, TOLERANCE)
