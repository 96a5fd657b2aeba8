"""Families that hold states: tiny random weights against the reference code, from folders and GGUF files."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from expert_models import TinyModel, V, open_folder, reference, runner_of, save_folder
from native_support import HERE, divergence
from pentad.execution.batch import RaggedBatch
from pentad.execution.native.runner import NativeRunner
from pentad.execution.torch.runner import TorchRunner
from ragged_batches import check_cut_sequences, check_mixed_step, ragged

TOLERANCE = 1e-3
DELTA = {
    "num_hidden_layers": 4,
    "head_dim": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
}
GRANITE = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_d_state": 32,
    "shared_intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.1,
    "logits_scaling": 4.0,
}
FAMILIES = {
    "qwen3-next": TinyModel(
        config="Qwen3Next",
        sizes={
            **DELTA,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 64,
            "mlp_only_layers": [2],
        },
        arch="qwen3next",
        metadata={},
    ),
    "mamba2": TinyModel(
        config="Mamba2",
        sizes={
            "intermediate_size": None,
            "num_attention_heads": None,
            "num_key_value_heads": None,
            "max_position_embeddings": None,
            "attn_implementation": None,
            "num_heads": 8,
            "head_dim": 16,
            "state_size": 32,
            "n_groups": 2,
        },
        arch="mamba2",
        metadata={},
    ),
    "qwen3.5": TinyModel(config="Qwen3_5Text", model="Qwen3_5", sizes=DELTA, arch="qwen35", metadata={}),
    "granite-4": TinyModel(
        config="GraniteMoeHybrid",
        sizes={
            **GRANITE,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "position_embedding_type": "rope",
        },
        arch="granitehybrid",
        metadata={},
    ),
    "granite-4-dense": TinyModel(
        config="GraniteMoeHybrid", sizes=GRANITE | {"num_local_experts": 0}, arch="granitehybrid", metadata={}
    ),
    "bamba": TinyModel(
        config="Bamba",
        sizes={
            "attn_layer_indices": [1],
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_n_groups": 2,
            "mamba_d_state": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
        arch="bamba",
        metadata={},
    ),
    "nemotron-h": TinyModel(
        config="NemotronH",
        sizes={
            "num_hidden_layers": 5,
            "layers_block_type": ["linear_attention", "mlp", "full_attention", "moe", "linear_attention"],
            "head_dim": 32,
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "ssm_state_size": 32,
            "n_groups": 2,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "moe_shared_expert_intermediate_size": 64,
            "routed_scaling_factor": 1.5,
        },
        arch="nemotron_h",
        metadata={},
    ),
    "lfm2": TinyModel(
        config="Lfm2",
        sizes={"layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 16}
        | {"num_attention_heads": 2, "num_key_value_heads": 1},
        arch="lfm2",
        metadata={},
    ),
}
Loaded = tuple[Any, TorchRunner, pathlib.Path]
NATIVE_DIVERGENCE = 0.02
"""In nats, at the median: 8-bit weights alone cost Qwen3.5's random model 0.03 on average. A wrong mapping
costs more for every token."""


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The reference, our runner of its folder, and that folder."""
    tiny, folder = FAMILIES[request.param], tmp_path_factory.mktemp("model")
    model = dataclasses.replace(tiny, sizes={"initializer_range": 0.15, **tiny.sizes}).build()
    return model, runner_of(*open_folder(save_folder(model, folder))), folder


def with_states(runner: TorchRunner | NativeRunner) -> Callable[[RaggedBatch], np.ndarray]:
    """Logits where each sequence has its state in the row of its first block's number."""

    def logits(batch: RaggedBatch) -> np.ndarray:
        return runner.logits(dataclasses.replace(batch, state_rows=batch.block_tables[:, 0]))

    return logits


def test_logits_equal_the_reference_whole_in_chunks_and_from_the_state(loaded: Loaded) -> None:
    check_cut_sequences(with_states(loaded[1]), partial(reference, loaded[0]), V, TOLERANCE)


def test_a_sequence_gets_in_a_batch_what_it_gets_alone(loaded: Loaded) -> None:
    check_mixed_step(with_states(loaded[1]), partial(reference, loaded[0]), V, TOLERANCE)


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
def test_native_kernels_come_as_near_as_eight_bits_allow(loaded: Loaded) -> None:
    model, _, folder = loaded
    runner = NativeRunner.load(*open_folder(folder), num_blocks=64, threads=1)
    tokens = np.random.default_rng(3).integers(0, V, 70).tolist()
    logits, blocks = with_states(runner), [9, 3, 4, 60, 11]
    parts = [logits(ragged([(tokens[a:b], a, blocks)])) for a, b in ((0, 50), (50, 69), (69, 70))]
    apart = divergence(reference(model, tokens), np.concatenate(parts))
    assert np.median(apart) < NATIVE_DIVERGENCE
    runner.close()


def test_every_parameter_is_counted(loaded: Loaded) -> None:
    model, runner, _ = loaded
    # The reference keeps what corrects a router's choice beside its parameters.
    corrections = (b for name, b in model.named_buffers() if name.endswith("e_score_correction_bias"))
    counted = (*model.parameters(), *corrections)
    assert runner.spec.parameters == sum(value.numel() for value in counted)


def test_a_state_takes_what_the_records_say(loaded: Loaded) -> None:
    runner = loaded[1]
    runner._states.places(range(40))
    assert runner._states.nbytes == runner._states.rows * runner.spec.state_bytes(4) > 0
