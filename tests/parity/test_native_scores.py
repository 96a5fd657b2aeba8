"""Attention scores per cache slot against the attention of Hugging Face's own code."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from native_support import HERE
from pentad.execution.native.runner import NativeRunner
from pentad.model.loading import open_model
from ragged_batches import ragged
from tokenizer_texts import wikitext
from torch_reference import gguf_reference

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

TOKENS = 300


@pytest.mark.parametrize("chunk", [TOKENS, 25])
def test_scores_are_the_sums_of_the_reference_s_softmax_weights(
    smollm2_path: pathlib.Path, chunk: int
) -> None:
    import torch

    files = open_model(smollm2_path)
    spec = files.spec
    tokens = files.tokenizer.encode("".join(wikitext()), special=False)[:TOKENS]
    reference = gguf_reference(smollm2_path)
    reference.set_attn_implementation("eager")
    with torch.no_grad():
        layers = reference(torch.tensor([tokens]), output_attentions=True).attentions
    exact = np.stack([layer[0].sum(dim=1).numpy() for layer in layers])  # [layers, heads, slots]
    exact = exact.reshape(spec.layers, spec.kv_heads, -1, TOKENS).sum(axis=2)
    blocks = list(range(-(-TOKENS // 16)))
    runner = NativeRunner.load(spec, files.weights, num_blocks=len(blocks), attention_scores=True)
    for at in range(0, TOKENS, chunk):
        runner.logits(ragged([(tokens[at : at + chunk], at, blocks)], rows=[]))
    found = np.concatenate([runner.attention_scores(block) for block in blocks], axis=-1)[:, :, :TOKENS]
    runner.close()
    files.close()
    # Of all attention there is, what lies on other slots than the reference's; later layers inherit errors.
    moved = np.abs(found - exact).sum(axis=-1) / exact.sum(axis=-1) / 2
    assert moved.max() < 0.03, moved.max()
    assert moved.mean() < 0.01, moved.mean()
    # What a policy does with them: the tenth that has most is the same tenth.
    kept = TOKENS // 10
    best = [np.argsort(-scores, axis=-1)[:, :, :kept] for scores in (found, exact)]
    shared = np.mean(
        [
            len(set(best[0][layer, head]) & set(best[1][layer, head])) / kept
            for layer in range(spec.layers)
            for head in range(spec.kv_heads)
        ]
    )
    assert shared > 0.95, shared
