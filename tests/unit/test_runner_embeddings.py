"""Both runners of ours compute inputs that are no tokens like the rows of the table whose place they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.native_support import HERE, random_weights, tiny_spec
from tests.projector import projected
from tests.ragged_batches import ragged, whole

from pentad.execution.batch import RaggedBatch
from pentad.execution.engine import Engine
from pentad.execution.native.runner import NativeRunner
from pentad.execution.quant import dequantize
from pentad.execution.request import EmbeddedSpan, TokenRequest
from pentad.execution.scheduling import EngineLimits
from pentad.execution.torch.runner import TorchRunner
from pentad.testing.engines import run, token_request
from pentad.testing.schedulers import ArbitraryScheduler

SPEC = tiny_spec()
WEIGHTS = random_weights(SPEC, "Q8_0", 3)
TABLE = dequantize(WEIGHTS.tensor("embed")).reshape(SPEC.vocab_size, SPEC.width)
TOKENS = [5, 17, 160, 42, 77, 3, 99, 120, 8, 64, 31, 200, 11, 54, 90, 2, 150, 33, 71, 6]
TAKEN = range(4, 13)
"""Positions whose rows are given in the place of tokens."""
KINDS = ["torch", *(["native"] if HERE else [])]


@pytest.fixture(scope="module", params=KINDS)
def runner(request: pytest.FixtureRequest) -> Any:
    kind = TorchRunner if request.param == "torch" else NativeRunner
    options: dict[str, Any] = {"dtype": "float32"} if request.param == "torch" else {}
    loaded = kind.load(SPEC, WEIGHTS, num_blocks=64, threads=1, **options)
    yield loaded
    loaded.close()


def embedded(batch: RaggedBatch, rows: np.ndarray, takers: list[int]) -> RaggedBatch:
    """The batch with those rows at those tokens, whose ids become a placeholder."""
    lines = np.full(len(batch.token_ids), -1, np.int32)
    lines[takers] = range(len(takers))
    ids = np.where(lines >= 0, 0, batch.token_ids).astype(np.int32)
    facts = {name: getattr(batch, name) for name in RaggedBatch.__slots__}
    return RaggedBatch(**facts | {"token_ids": ids, "embeddings": rows, "embedding_rows": lines})


def test_rows_of_the_table_give_the_logits_of_their_tokens(runner: Any) -> None:
    plain = runner.logits(whole(TOKENS))
    rows = TABLE[[TOKENS[i] for i in TAKEN]]
    found = runner.logits(embedded(whole(TOKENS, first_block=4), rows, list(TAKEN)))
    np.testing.assert_array_equal(found, plain)


def test_a_step_behind_one_with_rows_takes_tokens_again(runner: Any) -> None:
    plain = runner.logits(whole(TOKENS))
    runner.logits(embedded(whole(TOKENS, first_block=4), projected(b"a", 9, SPEC.width), list(TAKEN)))
    np.testing.assert_array_equal(runner.logits(whole(TOKENS, first_block=8)), plain)


def test_other_rows_give_other_logits_and_only_behind_them(runner: Any) -> None:
    plain = runner.logits(whole(TOKENS))
    found = runner.logits(embedded(whole(TOKENS), projected(b"a", 9, SPEC.width), list(TAKEN)))
    np.testing.assert_array_equal(found[: TAKEN.start], plain[: TAKEN.start])
    assert np.abs(found[TAKEN.start :] - plain[TAKEN.start :]).max(axis=1).min() > 1e-3


def test_rows_of_several_sequences_lie_in_any_order(runner: Any) -> None:
    rows = np.concatenate((projected(b"a", 2, SPEC.width), projected(b"b", 2, SPEC.width)))
    parts = [(TOKENS[:6], 0, [0]), ([7, 8, 9], 0, [1]), (TOKENS[:6], 0, [2])]
    batch = embedded(ragged(parts), rows, [2, 3, 11, 12])
    alone = runner.logits(embedded(whole(TOKENS[:6], first_block=4), rows[2:], [2, 3]))
    turned = runner.logits(
        RaggedBatch(
            **{name: getattr(batch, name) for name in RaggedBatch.__slots__}
            | {
                "embeddings": rows[::-1],
                "embedding_rows": np.where(batch.embedding_rows >= 0, 3 - batch.embedding_rows, -1),
            }
        )
    )
    np.testing.assert_allclose(turned[9:], alone, atol=2e-4)
    np.testing.assert_array_equal(turned[6:9], runner.logits(ragged(parts))[6:9])


def asked(id: str, data: bytes) -> TokenRequest:
    span = EmbeddedSpan.of(TAKEN.start, projected(data, len(TAKEN), SPEC.width))
    prompt = [0 if i in TAKEN else token for i, token in enumerate(TOKENS)]
    return token_request(id, prompt, 6, embedded=(span,))


def engine(runner: Any, *, tokens: int = 64, preempt: float = 0.0, prefix_cache: bool = True) -> Engine:
    return Engine(
        runner,
        ArbitraryScheduler(2, preempt_probability=preempt),
        limits=EngineLimits(max_batch_tokens=tokens, max_sequences=8),
        prefix_cache=prefix_cache,
        check_invariants=True,
    )


def test_cached_chunked_batched_and_preempted_answers_are_those_of_alone(runner: Any) -> None:
    alone = {}
    for data in (b"a", b"b"):
        alone[data] = run(engine(runner, prefix_cache=False), asked("x", data))["x"].tokens
    assert alone[b"a"] != alone[b"b"]
    cached = engine(runner)
    for turn in range(2):
        for data, tokens in alone.items():
            answer = run(cached, asked(f"{turn}{data!r}", data))[f"{turn}{data!r}"]
            assert answer.tokens == tokens
            assert answer.stats is not None
            assert answer.stats.cached_tokens == 16 * turn
    for options in ({"tokens": 3}, {"tokens": 64}, {"tokens": 9, "preempt": 0.3}):
        several = engine(runner, prefix_cache=False, **options)  # type: ignore[arg-type]
        found = run(several, *(asked(f"{i}{data!r}", data) for i in range(3) for data in alone))
        assert (several.stats()["preemptions_total"] > 0) == ("preempt" in options)
        for id, answer in found.items():
            assert answer.tokens == alone[b"a" if "a" in id else b"b"]


@pytest.mark.skipif(not HERE, reason="no native kernels for this machine")
def test_the_kernels_refuse_rows_that_are_not_there() -> None:
    runner = NativeRunner.load(SPEC, WEIGHTS, num_blocks=8, threads=1)
    batch = whole(TOKENS)
    rows = projected(b"a", 9, SPEC.width)
    facts = {name: getattr(batch, name) for name in RaggedBatch.__slots__}
    for line in (-2, 9):
        lines = np.full(len(TOKENS), line, np.int32)
        with pytest.raises(ValueError, match="input embedding"):
            runner.logits(RaggedBatch(**facts | {"embeddings": rows, "embedding_rows": lines}))
    lines = np.zeros(len(TOKENS), np.int32)
    with pytest.raises(ValueError, match="width"):
        runner.logits(RaggedBatch(**facts | {"embeddings": rows[:, :-1], "embedding_rows": lines}))
    runner.close()
