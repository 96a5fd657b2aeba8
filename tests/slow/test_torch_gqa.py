"""Fewer key/value heads by mean pooling: what it costs in perplexity and what brief tuning wins back."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import pytest
import torch
import transformers

from evidence.plugin import Measure
from pentad.execution.quant import dequantize
from pentad.execution.spec import ModelSpec
from pentad.execution.torch.runner import TorchRunner
from pentad.execution.weights import WeightSource
from pentad.model.loading import open_model
from pentad.model.transforms.base import apply
from pentad.model.transforms.kv_pooling import KVPooling
from ragged_batches import whole
from torch_reference import DATA, llama_name

pytestmark = pytest.mark.slow

WINDOW, STEPS, BATCH = 256, 200, 2


@pytest.fixture(scope="module")
def text() -> str:
    path = DATA / "wikitext2-valid.txt"
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine; it is the held-out text of this test")
    return path.read_text()


def _perplexity(spec: ModelSpec, weights: WeightSource, tokens: list[int]) -> float:
    """By our own runner, in windows of `WINDOW` tokens."""
    runner = TorchRunner.load(spec, weights, num_blocks=WINDOW // 16, dtype="float32")
    losses = []
    for at in range(0, len(tokens) - WINDOW, WINDOW):
        part = tokens[at : at + WINDOW]
        logprobs = torch.from_numpy(runner.logits(whole(part))).log_softmax(-1)
        losses.append(-logprobs[:-1].gather(1, torch.tensor(part[1:])[:, None]).mean().item())
    return math.exp(sum(losses) / len(losses))


def _trainable(spec: ModelSpec, weights: WeightSource) -> transformers.LlamaForCausalLM:
    """Hugging Face's Llama on our weights: it has gradients, and that it loads them checks the conversion."""
    rope, block = spec.rope, spec.blocks[0]
    assert rope is not None
    assert block.feed_forward is not None
    config = transformers.LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.width,
        intermediate_size=block.feed_forward.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        max_position_embeddings=spec.context_length,
        rms_norm_eps=block.norm.eps,
        rope_theta=rope.base,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    state = {}
    for key in model.state_dict():
        name = "embed" if key == "lm_head.weight" else llama_name(key)
        assert name is not None
        values = dequantize(weights.tensor(name))
        if name.endswith((".q", ".k")):  # the file has rotary pairs as neighbours
            values = (
                values.reshape(-1, spec.head_dim // 2, 2, spec.width).swapaxes(1, 2).reshape(values.shape)
            )
        state[key] = torch.from_numpy(np.ascontiguousarray(values))
    model.load_state_dict(state)
    return model


def _hf_perplexity(model: transformers.LlamaForCausalLM, tokens: list[int]) -> float:
    losses = []
    with torch.inference_mode():
        for at in range(0, len(tokens) - WINDOW, WINDOW):
            part = torch.tensor([tokens[at : at + WINDOW]])
            losses.append(model(part, labels=part).loss.item())
    return math.exp(sum(losses) / len(losses))


def _tune(model: transformers.LlamaForCausalLM, tokens: list[int]) -> None:
    """Next-token training of all weights, bfloat16 products over float32 weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.0)
    rng = np.random.default_rng(0)
    model.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-4 * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        starts = rng.integers(0, len(tokens) - WINDOW, BATCH)
        batch = torch.tensor([tokens[at : at + WINDOW] for at in starts])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@pytest.mark.row("mem-gqa", "effect", claims=(2,))
def test_tuning_wins_back_half_of_what_pooling_three_heads_into_one_costs(
    smollm2_path: pathlib.Path, text: str, measured: Measure
) -> None:
    files = open_model(smollm2_path)
    tokens = files.tokenizer.encode(text, special=False)
    held_out, training = tokens[: 16 * WINDOW + 1], tokens[20 * WINDOW :]
    pooled_spec, pooled_weights = apply(KVPooling(kv_heads=1), files.spec, files.weights)
    assert pooled_spec.kv_bytes_per_token() * 3 == files.spec.kv_bytes_per_token()

    before = _perplexity(files.spec, files.weights, held_out)
    after = _perplexity(pooled_spec, pooled_weights, held_out)
    model = _trainable(pooled_spec, pooled_weights)
    assert _hf_perplexity(model, held_out) == pytest.approx(after, rel=1e-3)
    _tune(model, training)
    tuned = _hf_perplexity(model, held_out)

    control = _trainable(files.spec, files.weights)
    _tune(control, training)
    floor = _hf_perplexity(control, held_out)
    share = (after - tuned) / (after - before)
    log_share = math.log(after / tuned) / math.log(after / before)
    fair_share = math.log(after / tuned) / math.log(after / floor)
    print(
        f"\nperplexity: original {before:.2f}, 3 heads pooled into 1 {after:.2f}, "
        f"after {STEPS} steps {tuned:.2f} (the original after the same steps {floor:.2f}); "
        f"won back {share:.1%} of the perplexity, {log_share:.1%} of the log perplexity, "
        f"{fair_share:.1%} of it against the tuned original"
    )
    assert after > before
    measured("share of the perplexity won back", share, at_least=0.5)
