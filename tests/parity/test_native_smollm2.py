"""SmolLM2-135M on the native kernels: close to float32, and the same tokens on every instruction set."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from native_support import HERE, divergence
from native_ties import NEAR_TIE, partings
from pentad.execution.native.packed import PackedCache
from pentad.execution.native.runner import NativeRunner
from pentad.execution.torch.runner import TorchRunner
from pentad.model.loading import ModelFiles, open_model
from ragged_batches import ragged, whole
from torch_generation import PROMPTS, engine, generate, prompts

pytestmark = pytest.mark.skipif(not HERE, reason="no native kernels are built")

SHORT_PROMPTS = PROMPTS.with_name("native_prompts.txt")
TEXT_TOKENS = 256
ROW_BY_ROW = [name for name in HERE if name not in ("amx", "portable")][:1]
"""The fastest set whose numbers for a token do not depend on how its prompt is cut."""

Load = Callable[..., NativeRunner]


@pytest.fixture(scope="module")
def files(smollm2_path: pathlib.Path) -> ModelFiles:
    return open_model(smollm2_path)


@pytest.fixture(scope="module")
def load(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Loads the model; weights are packed once for all tests."""
    cache = PackedCache(folder=tmp_path_factory.mktemp("packed"), identity="smollm2")

    def load(kernels: str, num_blocks: int = 400) -> NativeRunner:
        settings = {"num_blocks": num_blocks, "threads": 1, "kernels": kernels, "cache": cache}
        return NativeRunner.load(files.spec, files.weights, **settings)  # type: ignore[arg-type]

    return load


@pytest.fixture(scope="module")
def text(files: ModelFiles) -> list[int]:
    return files.tokenizer.encode(PROMPTS.read_text(), special=False)[:TEXT_TOKENS]


@pytest.fixture(scope="module")
def reference(files: ModelFiles) -> Iterator[TorchRunner]:
    runner = TorchRunner.load(files.spec, files.weights, num_blocks=32, dtype="float32")
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def exact(reference: TorchRunner, text: list[int]) -> np.ndarray:
    """Logits of the text in float32 on the same weights."""
    return reference.logits(whole(text))


@pytest.fixture(scope="module", params=HERE)
def runner(request: pytest.FixtureRequest, load: Load) -> Iterator[NativeRunner]:
    runner = load(request.param)
    yield runner
    runner.close()


def agreement(exact: np.ndarray, found: np.ndarray) -> float:
    return float((exact.argmax(-1) == found.argmax(-1)).mean())


def test_a_text_at_once_gives_the_distributions_of_float32(
    runner: NativeRunner, text: list[int], exact: np.ndarray
) -> None:
    found = runner.logits(whole(text))
    apart = divergence(exact, found)
    assert apart.mean() < 0.004
    assert apart.max() < 0.08
    assert agreement(exact, found) >= 0.95


def test_a_text_in_small_steps_gives_the_distributions_of_float32(
    runner: NativeRunner, text: list[int], exact: np.ndarray
) -> None:
    found = [
        runner.logits(ragged([(text[at : at + size], at, list(range(90, 110)))]))
        for at, size in [(0, 5), *((at, 3) for at in range(5, TEXT_TOKENS, 3))]
    ]
    found_all = np.concatenate(found)[:TEXT_TOKENS]
    apart = divergence(exact, found_all)
    assert apart.mean() < 0.006
    assert apart.max() < 0.08
    assert agreement(exact, found_all) >= 0.95


def free_run(runner: NativeRunner, asked: Sequence[tuple[int, ...]], tokens: int) -> list[list[int]]:
    return generate(engine(runner, max_sequences=10), asked, tokens).tokens


@pytest.fixture(scope="module")
def short_prompts(files: ModelFiles) -> list[tuple[int, ...]]:
    lines = SHORT_PROMPTS.read_text().splitlines()
    assert len(lines) == 20
    return [tuple(files.tokenizer.encode(line, special=False)) for line in lines]


@pytest.fixture(scope="module")
def portable_tokens(load: Load, short_prompts: list[tuple[int, ...]]) -> list[list[int]]:
    return free_run(load("portable"), short_prompts, 8)


@pytest.mark.parametrize("kernels", [name for name in HERE if name != "portable"])
def test_every_instruction_set_draws_portable_s_greedy_tokens_but_at_near_ties(
    kernels: str,
    load: Load,
    reference: TorchRunner,
    short_prompts: list[tuple[int, ...]],
    portable_tokens: list[list[int]],
) -> None:
    found = free_run(load(kernels), short_prompts, 8)
    ties = list(partings(reference, short_prompts, portable_tokens, found))
    print(f"{kernels}: {20 - len(ties)} of 20 equal; near-ties: {'; '.join(map(str, ties))}")
    for tie in ties:
        assert abs(tie.gap) < NEAR_TIE, tie
    assert len(ties) <= 6


@pytest.mark.row("mem-paged", "mechanism")
@pytest.mark.parametrize("kernels", ROW_BY_ROW)
def test_batches_chunks_and_scarce_blocks_give_the_tokens_of_each_prompt_alone(
    kernels: str, load: Load, files: ModelFiles
) -> None:
    asked = prompts(files, 12)
    runner = load(kernels)
    alone = [generate(engine(runner, max_sequences=1), [prompt], 12).tokens[0] for prompt in asked]
    assert generate(engine(runner), asked, 12).tokens == alone
    assert generate(engine(runner, max_batch_tokens=40), asked, 12).tokens == alone
    assert generate(engine(runner, preempt_after_tokens=5), asked, 12).tokens == alone
    scarce = generate(engine(load(kernels, 14)), asked, 12)
    assert scarce.tokens == alone
    again = generate(engine_with_prefixes := engine(runner), asked, 12)
    assert again.tokens == alone
    cached = generate(engine_with_prefixes, asked, 12)
    assert cached.tokens == alone
    assert cached.cached_tokens > 0


def test_scattered_blocks_give_the_logits_of_consecutive_ones(runner: NativeRunner, text: list[int]) -> None:
    tokens = text[:60]
    consecutive = runner.logits(whole(tokens))
    blocks = [311, 4, 177, 90]
    np.testing.assert_array_equal(runner.logits(ragged([(tokens, 0, blocks)])), consecutive)
