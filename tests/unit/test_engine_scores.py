"""A prompt's tokens are scored as the model's own logits say, however the prompt is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from chat_support import ScriptRunner, ask, engine_backend
from pentad.execution.backend import Completion, fold
from pentad.execution.batch import Drawn, RaggedBatch
from pentad.execution.engine import Engine
from pentad.execution.request import StepOutput, TokenRequest
from pentad.execution.sampling import logprobs
from pentad.execution.scheduling import EngineLimits
from pentad.execution.scoring import ROWS_PER_STEP
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.runners import ToyRunner
from pentad.types import Sampling

VOCAB = 64
SCORED = Sampling(temperature=0, prompt_logprobs=2)


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(t) for t in np.random.default_rng(seed).integers(3, VOCAB, length))


def request(
    id: str, tokens: tuple[int, ...], sampling: Sampling = SCORED, max_tokens: int = 3
) -> TokenRequest:
    return TokenRequest(id=id, prompt=tokens, sampling=sampling, max_tokens=max_tokens)


def run(*requests: TokenRequest, blocks: int = 256, **limits: int) -> dict[str, list[StepOutput]]:
    """All outputs of the requests, with the books checked after every step."""
    runner = ToyRunner(vocab_size=VOCAB, num_blocks=blocks, context_length=1024)
    engine = Engine(runner, Sarathi(), limits=EngineLimits(**limits), check_invariants=True)
    for one in requests:
        engine.add(one)
    outputs: dict[str, list[StepOutput]] = {one.id: [] for one in requests}
    while engine.has_work:
        for output in engine.step():
            outputs[output.id].append(output)
    engine.close()
    return outputs


def expected(tokens: Sequence[int]) -> list[Drawn]:
    """The same from one pass over the prompt that keeps all logits."""
    runner = ToyRunner(vocab_size=VOCAB, num_blocks=256, context_length=1024)
    count = len(tokens)
    blocks = -(-count // runner.block_size)
    batch = RaggedBatch(
        token_ids=np.array(tokens, np.int32),
        positions=np.arange(count, dtype=np.int32),
        slots=np.arange(count, dtype=np.int32),
        starts=np.array([0, count], np.int32),
        context_lens=np.array([count], np.int32),
        block_tables=np.arange(blocks, dtype=np.int32)[None],
        logit_rows=np.arange(count - 1, dtype=np.int32),
    )
    found = []
    for row, token in zip(runner.logits(batch), tokens[1:], strict=True):
        logprob, alternatives = logprobs(row, token, 2)
        found.append(Drawn(token=token, logprob=logprob, alternatives=alternatives))
    return found


def scores(outputs: list[StepOutput]) -> list[Drawn]:
    return [one for output in outputs for one in output.prompt]


@pytest.mark.parametrize("length", [1, 2, 17, 2 * ROWS_PER_STEP + 5])
@pytest.mark.parametrize("chunk", [7, 512])
def test_every_token_behind_the_first_is_scored_with_the_models_own_logits(length: int, chunk: int) -> None:
    tokens = prompt(length)
    outputs = run(request("r", tokens), max_batch_tokens=chunk)["r"]
    assert scores(outputs) == expected(tokens)
    assert [bool(output.prompt) for output in outputs[1:]] == [False] * (len(outputs) - 1)


def test_company_and_what_is_cached_change_neither_scores_nor_answer() -> None:
    tokens = prompt(40)
    plain = Sampling(temperature=0)
    alone = run(request("r", tokens))["r"]
    outputs = run(
        request("cached", tokens, plain),
        request("r", tokens),
        request("other", prompt(50, seed=1), plain),
        request("again", tokens),
        max_batch_tokens=48,
    )
    for id in ("r", "again"):
        assert scores(outputs[id]) == scores(alone) == expected(tokens)
        assert [d.token for o in outputs[id] for d in o.drawn] == [d.token for o in alone for d in o.drawn]
    assert scores(outputs["cached"]) == scores(outputs["other"]) == []


def test_a_sequence_preempted_on_the_way_has_each_score_once() -> None:
    long = [request(f"r{i}", prompt(60, seed=i), max_tokens=40) for i in range(4)]
    outputs = run(*long, blocks=40, max_batch_tokens=32)
    stats = [outputs[one.id][-1].stats for one in long]
    assert sum(one.preemptions for one in stats if one is not None) > 0
    for one in long:
        assert scores(outputs[one.id]) == expected(one.prompt)


def answer(sampling: Sampling, tokens: tuple[int, ...]) -> Completion:
    async def work() -> Completion:
        runner = ScriptRunner()
        async with engine_backend(runner) as backend:
            runner.says("ok")
            runner.prompt_tokens = len(tokens)
            return fold([delta async for delta in backend.stream(ask(token_ids=tokens, sampling=sampling))])

    return asyncio.run(work())


def test_a_prompt_is_scored_without_an_answer() -> None:
    tokens = tuple(range(5, 25))
    scored = answer(Sampling(temperature=0, max_tokens=0, prompt_logprobs=1), tokens)
    choice = scored.choices[0]
    assert (choice.message.content, scored.usage.completion_tokens) == ("", 0)
    assert len(choice.prompt) == len(tokens)
    assert all(entry.logprob < 0 and len(entry.alternatives) == 1 for entry in choice.prompt[1:])
