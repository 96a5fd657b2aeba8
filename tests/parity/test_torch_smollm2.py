"""SmolLM2-135M, the default model: logits of the reference, and tokens that no way of running changes."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from evidence.plugin import Measure
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import ModelFiles, open_model
from ragged_batches import ragged, whole
from torch_generation import PROMPTS, Outcome, engine, generate, prompts
from torch_reference import gguf_reference

TOKENS = 10


@pytest.fixture(scope="module")
def files(smollm2_path: pathlib.Path) -> ModelFiles:
    return open_model(smollm2_path)


@pytest.fixture(scope="module")
def runner(files: ModelFiles) -> Iterator[TorchRunner]:
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=512, dtype="float32")
    yield runner
    runner.close()


Load = Callable[..., TorchRunner]


@pytest.fixture(scope="module")
def load(files: ModelFiles) -> Load:
    """Loads the model in float32 with other cache geometries."""
    return lambda **options: TorchRunner.load(files.spec, files.weights, dtype="float32", **options)


@pytest.fixture(scope="module")
def batched(files: ModelFiles, runner: TorchRunner) -> Outcome:
    """Fifty prompts in one batch over 16-token blocks, whole prompts at once where they fit."""
    return generate(engine(runner), prompts(files), TOKENS)


@pytest.mark.row("m-llama", "mechanism")
@pytest.mark.row("m-llama", "effect", claims=(1,))
def test_logits_equal_the_reference_on_short_and_long_prompts(
    files: ModelFiles, runner: TorchRunner, smollm2_path: pathlib.Path, measured: Measure
) -> None:
    reference = gguf_reference(smollm2_path)
    chat = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    texts = [files.tokenizer.encode(chat, special=True), *map(list, prompts(files, 4))]
    texts.append(files.tokenizer.encode(PROMPTS.read_text(), special=False)[:640])
    assert len(texts[-1]) == 640
    for tokens in texts:
        with torch.inference_mode():
            expected = reference(torch.tensor([tokens])).logits[0].numpy()
        got = runner.logits(whole(tokens))
        error = float(np.abs(got - expected).max())
        measured(f"largest logit error, {len(tokens)} tokens", error, at_most=1e-3)
        np.testing.assert_array_equal(got.argmax(-1), expected.argmax(-1))


@pytest.mark.row("mem-paged", "mechanism", claims=(3,))
def test_scattered_blocks_give_the_logits_of_a_contiguous_cache(
    files: ModelFiles, runner: TorchRunner
) -> None:
    tokens = list(prompts(files, 1)[0]) * 4
    scattered = np.random.default_rng(1).permutation(runner.num_blocks)[: -(-len(tokens) // 16)].tolist()
    contiguous = runner.logits(whole(tokens))
    in_chunks = [
        runner.logits(ragged([(tokens[at : at + 33], at, scattered)])) for at in range(0, len(tokens), 33)
    ]
    np.testing.assert_allclose(np.concatenate(in_chunks), contiguous, atol=1e-3)


@pytest.mark.row("mem-paged", "effect", claims=(3,))
@pytest.mark.row("ag-query-batch", "mechanism", claims=(2,))
def test_each_prompt_alone_over_a_contiguous_cache_gives_the_batch_s_tokens(
    files: ModelFiles, load: Load, batched: Outcome
) -> None:
    contiguous = load(num_blocks=2, block_size=128)  # one block holds a whole sequence
    some = prompts(files)[::2]  # each is a batch of its own, so half of the fifty takes seconds enough
    alone = [generate(engine(contiguous, max_sequences=1), [p], TOKENS).tokens[0] for p in some]
    assert batched.steps < 50
    assert alone == batched.tokens[::2]


@pytest.mark.row("m-llama", "mechanism", claims=(2,))
def test_prompts_in_small_chunks_give_the_same_tokens(
    files: ModelFiles, runner: TorchRunner, batched: Outcome
) -> None:
    chunked = generate(engine(runner, max_batch_tokens=66), prompts(files), TOKENS)
    assert chunked.steps > batched.steps
    assert chunked.tokens == batched.tokens


@pytest.mark.row("ag-preempt", "mechanism", claims=(1,))
def test_preempted_sequences_give_the_same_tokens(
    files: ModelFiles, runner: TorchRunner, batched: Outcome
) -> None:
    disturbed = generate(engine(runner, preempt_after_tokens=5), prompts(files), TOKENS)
    assert disturbed.preemptions == 50
    assert disturbed.tokens == batched.tokens


def test_preemption_for_want_of_blocks_gives_the_same_tokens(
    files: ModelFiles, load: Load, batched: Outcome
) -> None:
    scarce = generate(engine(load(num_blocks=160, block_size=4)), prompts(files), TOKENS)
    assert scarce.preemptions >= 5
    assert scarce.tokens == batched.tokens


def test_prefix_hits_give_the_same_tokens(files: ModelFiles, runner: TorchRunner, batched: Outcome) -> None:
    warm = engine(runner)
    first = generate(warm, prompts(files), TOKENS)
    second = generate(warm, prompts(files), TOKENS)
    assert second.cached_tokens >= 50 * 16
    assert first.tokens == batched.tokens
    assert second.tokens == batched.tokens


def test_bfloat16_keeps_the_distribution(files: ModelFiles, runner: TorchRunner) -> None:
    half = TorchRunner.load(files.spec, files.weights, num_blocks=64, dtype="bfloat16")
    batch = whole(files.tokenizer.encode(PROMPTS.read_text(), special=False)[:512])
    exact, rounded = (torch.from_numpy(r.logits(batch)).log_softmax(-1) for r in (runner, half))
    divergence = (exact.exp() * (exact - rounded)).sum(-1)
    assert divergence.mean() < 0.003
    assert (exact.argmax(-1) == rounded.argmax(-1)).float().mean() > 0.95
