"""What a KV policy costs on a real model: texts as if generated, and numbers to be found again."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import numpy.typing as npt

from pentad.choice import Choice, build
from pentad.execution.engine import Engine
from pentad.execution.kv.policy import KVPolicy
from pentad.execution.native.runner import NativeRunner
from pentad.execution.request import TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.model.loading import ModelFiles
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import token_request
from pentad.types import Sampling
from tokenizer_texts import wikitext

GREEDY = Sampling(temperature=0, logprobs=0, ignore_eos=True)


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
    logprobs: npt.NDArray[np.float64]
    """Of what was generated, [texts, tokens]; in the order of each text."""
    answers: list[list[int]]
    most_blocks: int
    """Held behind the prompts, at most, for all texts."""
    full_blocks: int
    """That all tokens of the texts would need."""
    shares: list[dict[str, float]]
    """What the policy reports of each text."""

    @property
    def perplexity(self) -> float:
        return math.exp(-float(np.mean(self.logprobs)))


def run_policy(files: ModelFiles, policy: Choice | KVPolicy, requests: list[TokenRequest]) -> Outcome:
    """The requests in a real engine with the policy at work."""
    chosen: KVPolicy = build("kv_policy", policy) if isinstance(policy, Choice) else policy
    drops = chosen.start(files.spec) is not None
    full = sum(-(-(len(r.prompt) + r.max_tokens - 1) // 16) for r in requests)
    runner = NativeRunner.load(
        files.spec,
        files.weights,
        num_blocks=full + 8,
        key_centres=not drops,
        attention_scores="attention-scores" in chosen.needs,
        threads=1,
    )
    limits = EngineLimits(max_sequences=len(requests))
    engine = Engine(runner, Sarathi(), limits=limits, kv_policy=chosen, prefix_cache=False)
    engine.add(*requests)
    logprobs: dict[str, list[float]] = {r.id: [] for r in requests}
    answers: dict[str, list[int]] = {r.id: [] for r in requests}
    shares: dict[str, dict[str, float]] = {r.id: {} for r in requests}
    most_blocks = 0
    while engine.has_work:
        for output in engine.step():
            assert output.error is None, output.error
            logprobs[output.id] += [d.logprob for d in output.drawn if d.logprob is not None]
            answers[output.id] += [d.token for d in output.drawn]
            if output.stats is not None:
                for decision in output.stats.decisions:
                    shares[output.id] |= {name: value or 0.0 for name, value in decision.candidates}
        if all(len(found) > 2 for found in answers.values()):
            most_blocks = max(most_blocks, int(engine.stats()["kv_blocks_held"]))
    engine.close()
    return Outcome(
        np.array(list(logprobs.values())), list(answers.values()), most_blocks, full, list(shares.values())
    )


def forced_texts(files: ModelFiles, texts: int, prompt: int, length: int) -> list[TokenRequest]:
    """Parts of WikiText-2, all behind the prompt as if generated."""
    tokens = files.tokenizer.encode("".join(wikitext()), special=False)
    stride = len(tokens) // texts
    parts = [tokens[i * stride : i * stride + length] for i in range(texts)]
    return [
        token_request(
            f"t{i}",
            part[:prompt],
            length - prompt,
            sampling=GREEDY,
            constraint=Forced(part[prompt:], files.spec.vocab_size),
        )
        for i, part in enumerate(parts)
    ]


@dataclasses.dataclass(frozen=True)
class Needles:
    """Texts that say a number somewhere, and ask for it at their end."""

    requests: list[TokenRequest]
    answers: list[str]

    def found(self, files: ModelFiles, outcome: Outcome) -> float:
        """Fraction of the numbers that was told right."""
        told = [files.tokenizer.decode(answer) for answer in outcome.answers]
        hits = [text.strip().startswith(answer) for text, answer in zip(told, self.answers, strict=True)]
        return sum(hits) / len(hits)


def needles(files: ModelFiles, count: int, length: int, seed: int = 0) -> Needles:
    """So many texts of about so many tokens, the number at depths from a tenth to eight tenths."""
    rng = random.Random(seed)
    tokens = files.tokenizer.encode("".join(wikitext()), special=False)
    requests, answers = [], []
    for i in range(count):
        number = str(rng.randrange(10_000, 100_000))
        said = files.tokenizer.encode(f"\nThe secret code is {number}. Remember it.\n", special=False)
        asked = files.tokenizer.encode("\nWhat is the secret code? The secret code is", special=False)
        room = length - len(said) - len(asked)
        first = rng.randrange(len(tokens) - room)
        hay = tokens[first : first + room]
        depth = int(room * (0.1 + 0.7 * i / max(1, count - 1)))
        prompt = (*hay[:depth], *said, *hay[depth:], *asked)
        answer = len(files.tokenizer.encode(f" {number}", special=False))
        requests.append(token_request(f"n{i}", prompt, answer, sampling=GREEDY))
        answers.append(number)
    return Needles(requests, answers)
