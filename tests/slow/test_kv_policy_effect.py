"""What KV policies cost in accuracy: WikiText-2 as if generated, against a full cache, with SmolLM2."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from evidence.plugin import Measure
from native_support import HERE
from pentad.choice import Choice, build
from pentad.execution.engine import Engine
from pentad.execution.kv.policy import KVPolicy
from pentad.execution.native.runner import NativeRunner
from pentad.execution.scheduling import EngineLimits
from pentad.model.loading import ModelFiles, open_model
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import token_request
from pentad.types import Sampling
from tokenizer_texts import wikitext

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HERE, reason="no native kernels are built")]

TEXTS = 4
PROMPT, CONTEXT = 512, 1024
"""Tokens of a text that are its prompt, and all of them."""
FULL = Choice(name="keep-all")


@pytest.fixture(scope="module")
def files(smollm2_path: pathlib.Path) -> Iterator[ModelFiles]:
    opened = open_model(smollm2_path)
    yield opened
    opened.close()


@dataclasses.dataclass
class Forced:
    """A constraint that leaves no choice, so that a text is 'generated' token by token."""

    tokens: list[int]
    vocab_size: int
    at: int = 0

    def mask(self) -> npt.NDArray[np.uint32]:
        words = np.zeros(-(-self.vocab_size // 32), np.uint32)
        token = self.tokens[min(self.at, len(self.tokens) - 1)]
        words[token // 32] = np.uint32(1 << token % 32)
        return words

    def accept(self, token: int) -> None:
        assert token == self.tokens[self.at]
        self.at += 1

    def finished(self) -> bool:
        return False

    def fork(self) -> Forced:
        return dataclasses.replace(self)


@dataclasses.dataclass(frozen=True)
class Outcome:
    perplexity: float
    most_blocks: int
    """Held at the end of prompts, at most, for all texts."""


def outcome(files: ModelFiles, choice: Choice) -> Outcome:
    """Of the second halves of the texts, with the policy at work in a real engine."""
    policy: KVPolicy = build("kv_policy", choice)
    drops = policy.start(files.spec) is not None
    scored = "attention-scores" in policy.needs
    blocks = TEXTS * CONTEXT // 16 + 8
    runner = NativeRunner.load(
        files.spec, files.weights, num_blocks=blocks, key_centres=not drops, attention_scores=scored
    )
    limits = EngineLimits(max_sequences=TEXTS)
    engine = Engine(runner, Sarathi(), limits=limits, kv_policy=policy, prefix_cache=False)
    tokens = files.tokenizer.encode("".join(wikitext()), special=False)
    stride = len(tokens) // TEXTS
    for i in range(TEXTS):
        text = tokens[i * stride : i * stride + CONTEXT]
        engine.add(
            token_request(
                f"t{i}",
                text[:PROMPT],
                CONTEXT - PROMPT,
                sampling=Sampling(temperature=0, logprobs=0, ignore_eos=True),
                constraint=Forced(text[PROMPT:], files.spec.vocab_size),
            )
        )
    found: list[float] = []
    most_blocks = 0
    while engine.has_work:
        for output in engine.step():
            assert output.error is None, output.error
            found += [drawn.logprob for drawn in output.drawn if drawn.logprob is not None]
        if engine.stats()["generation_tokens_total"] > 2 * TEXTS:
            most_blocks = max(most_blocks, int(engine.stats()["kv_blocks_held"]))
    engine.close()
    assert len(found) == TEXTS * (CONTEXT - PROMPT)
    return Outcome(perplexity=math.exp(-float(np.mean(found))), most_blocks=most_blocks)


@pytest.fixture(scope="module")
def full(files: ModelFiles) -> Outcome:
    return outcome(files, FULL)


def sinks(budget: int, first: int = 4) -> Choice:
    return Choice(name="sinks", options={"first": first, "last": budget - first})


def test_sinks_at_half_the_text(files: ModelFiles, full: Outcome, measured: Measure) -> None:
    found = outcome(files, sinks(CONTEXT // 2))
    measured("perplexity at 50%, over full", found.perplexity / full.perplexity, at_most=1.1, unit="x")
    assert found.most_blocks <= TEXTS * (CONTEXT // 2 // 16 + 1)


def test_a_window_without_sinks_is_worse(files: ModelFiles, full: Outcome, measured: Measure) -> None:
    budget = CONTEXT // 8
    with_sinks, without = outcome(files, sinks(budget)), outcome(files, sinks(budget, first=0))
    measured("perplexity at 1/8, over full", with_sinks.perplexity / full.perplexity, at_most=1.2, unit="x")
    measured("window over sinks", without.perplexity / with_sinks.perplexity, at_least=1.5, unit="x")


def heavy(budget: int) -> Choice:
    return Choice(name="accumulated-attention", options={"heavy": budget // 2, "recent": budget // 2})


def test_heavy_hitters_at_half_the_text(files: ModelFiles, full: Outcome, measured: Measure) -> None:
    found = outcome(files, heavy(CONTEXT // 2))
    measured("perplexity at 50%, over full", found.perplexity / full.perplexity, at_most=1.1, unit="x")
    assert found.most_blocks <= TEXTS * (CONTEXT // 2 // 16 + 1)


def test_heavy_hitters_at_a_fifth_of_the_text(files: ModelFiles, full: Outcome, measured: Measure) -> None:
    budget = CONTEXT // 5 // 2 * 2
    found, window = outcome(files, heavy(budget)), outcome(files, sinks(budget, first=0))
    measured("perplexity at 20%, over full", found.perplexity / full.perplexity, at_most=1.1, unit="x")
    measured("window over heavy hitters", window.perplexity / found.perplexity, at_least=1.0, unit="x")
