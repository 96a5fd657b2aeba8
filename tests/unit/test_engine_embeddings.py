"""Inputs that are no tokens: computed as rows of the table are, however the engine cuts and shares them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.projector import projected

from pentad.errors import Incompatible, InvalidRequest, Unavailable
from pentad.execution.checks import check_memory
from pentad.execution.engine import Engine
from pentad.execution.request import EmbeddedSpan, TokenRequest
from pentad.model.kv_policies.sinks import Sinks
from pentad.model.speculation.base import DraftStrategy
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import run, token_request, toy_engine
from pentad.testing.runners import ToyRunner, reference, toy_row
from pentad.testing.schedulers import ArbitraryScheduler
from pentad.types import Sampling
from speculation_support import STRATEGIES, speculating

PLACEHOLDER = 9
IMAGE = projected(b"image", 10, 8)
OTHER = projected(b"other", 10, 8)


def asked(id: str, rows: np.ndarray, *, start: int = 3, length: int = 20, **options: object) -> TokenRequest:
    """A prompt with rows in its midst; the same tokens whatever the rows."""
    prompt = [i % 7 for i in range(length)]
    prompt[start : start + len(rows)] = [PLACEHOLDER] * len(rows)
    return token_request(id, prompt, 6, embedded=(EmbeddedSpan.of(start, rows),), **options)


def supplied(engine: Engine, request: TokenRequest) -> int:
    answer = run(engine, request)[request.id]
    assert answer.tokens == reference(request)
    assert answer.stats is not None
    return answer.stats.cached_tokens


def test_rows_of_the_table_give_what_their_tokens_give() -> None:
    tokens = [4, 8, 15, 16, 23, 42]
    plain = token_request("plain", [1, 2, *tokens, 3], 8)
    rows = np.stack([toy_row(token) for token in tokens])
    prompt = [1, 2, *[PLACEHOLDER] * len(tokens), 3]
    embedded = token_request("embedded", prompt, 8, embedded=(EmbeddedSpan.of(2, rows),))
    assert run(toy_engine(), plain)["plain"].tokens == run(toy_engine(), embedded)["embedded"].tokens


def test_the_rows_decide_and_not_the_placeholders() -> None:
    answers = run(toy_engine(), asked("image", IMAGE), asked("other", OTHER))
    assert answers["image"].tokens == reference(asked("image", IMAGE))
    assert answers["other"].tokens == reference(asked("other", OTHER))
    assert answers["image"].tokens != answers["other"].tokens


@pytest.mark.parametrize("scheduler", [Fcfs(), Sarathi()])
@pytest.mark.parametrize("max_batch_tokens", [1, 3, 7, 64])
def test_chunked_and_batched_equal_alone(scheduler: Fcfs | Sarathi, max_batch_tokens: int) -> None:
    requests = [
        asked("a", IMAGE),
        token_request("text", range(11), 6),
        asked("b", OTHER, start=9),
        asked("c", IMAGE, sampling=Sampling(temperature=0.8, repetition_penalty=1.5), seed=3),
    ]
    answers = run(toy_engine(scheduler, max_batch_tokens=max_batch_tokens), *requests)
    for request in requests:
        assert answers[request.id].tokens == reference(request)


def test_preempted_equals_not_preempted() -> None:
    requests = [asked(f"r{i}", IMAGE if i % 2 else OTHER, start=i % 5) for i in range(12)]
    scheduler = ArbitraryScheduler(1, preempt_probability=0.3)
    engine = toy_engine(scheduler, runner=ToyRunner(num_blocks=24), max_batch_tokens=9)
    answers = run(engine, *requests)
    assert engine.stats()["preemptions_total"] > 0
    for request in requests:
        assert answers[request.id].tokens == reference(request)


def test_equal_images_share_blocks_and_equal_placeholders_alone_do_not() -> None:
    engine = toy_engine()
    assert supplied(engine, asked("first", IMAGE)) == 0
    assert supplied(engine, asked("again", IMAGE)) == 16
    assert supplied(engine, asked("other", OTHER)) == 0
    text = asked("text", IMAGE)
    assert supplied(engine, replace(text, embedded=())) == 0


def test_what_stands_before_an_image_is_shared_whatever_the_image() -> None:
    engine = toy_engine()
    supplied(engine, asked("first", IMAGE, start=8))
    assert supplied(engine, asked("other", OTHER, start=8)) == 8


def test_the_same_image_at_another_place_or_cut_otherwise_is_not_shared() -> None:
    engine = toy_engine()
    digest = bytes(16)
    prompt = [PLACEHOLDER] * 12
    whole = EmbeddedSpan.of(0, IMAGE, digest)
    later = EmbeddedSpan.of(1, IMAGE, digest)
    supplied(engine, token_request("whole", prompt, 2, embedded=(whole,)))
    assert supplied(engine, token_request("later", prompt, 2, embedded=(later,))) == 0


def test_choices_of_one_prompt_share_it_only_with_the_same_image() -> None:
    engine = toy_engine()
    engine.add(asked("a", IMAGE), asked("b", OTHER, choice=1), asked("c", IMAGE, choice=2))
    answers = run(engine)
    assert answers["a"].tokens == answers["c"].tokens == reference(asked("a", IMAGE))
    assert answers["b"].tokens == reference(asked("b", OTHER))
    stats = answers["c"].stats
    assert stats is not None
    assert stats.cached_tokens == 19


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from([b"x", b"y"]), st.integers(1, 8)), max_size=8),
    st.integers(1, 24),
)
def test_any_mix_of_images_answers_as_each_does_alone(
    asks: list[tuple[int, bytes, int]], max_batch_tokens: int
) -> None:
    requests = [
        asked(f"r{i}", projected(data, count, 8), start=start) for i, (start, data, count) in enumerate(asks)
    ]
    answers = run(toy_engine(max_batch_tokens=max_batch_tokens), *requests)
    for request in requests:
        assert answers[request.id].tokens == reference(request)


def test_steps_behind_the_prompt_bring_no_rows() -> None:
    brought: list[bool] = []
    runner = ToyRunner(before_step=lambda batch: brought.append(batch.embeddings is not None))
    run(toy_engine(Sarathi(), runner=runner), asked("a", IMAGE))
    assert brought == [True, *[False] * 5]


def test_memory_for_rows_is_asked_for() -> None:
    plain, shown = (
        token_request("t", range(13)),
        asked("a", projected(b"large", 13, 1 << 20), start=0, length=13),
    )
    check_memory(80 << 20, [plain], 0)
    with pytest.raises(Unavailable, match="116 MiB may be needed"):
        check_memory(80 << 20, [shown], 0)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_drafts_change_nothing_behind_an_image(strategy: DraftStrategy) -> None:
    requests = [asked(f"r{i}", rows, start=i) for i, rows in enumerate((IMAGE, OTHER, IMAGE))]
    engine = speculating(strategy, max_batch_tokens=32)
    answers = run(engine, *requests)
    for request in requests:
        assert answers[request.id].tokens == reference(request)


def test_a_policy_that_drops_entries_answers_alone_as_in_company() -> None:
    requests = [asked(f"r{i}", rows, start=i, length=24) for i, rows in enumerate((IMAGE, OTHER, IMAGE))]
    policy = Sinks(first=2, last=7)
    alone = {r.id: run(toy_engine(kv_policy=policy), r)[r.id].tokens for r in requests}
    assert alone["r0"] != reference(requests[0])
    company = toy_engine(
        ArbitraryScheduler(3, preempt_probability=0.2), kv_policy=policy, max_batch_tokens=13
    )
    assert {id: answer.tokens for id, answer in run(company, *requests).items()} == alone


class TokensOnly:
    """A runner that never said that it takes embeddings."""

    def __init__(self) -> None:
        runner = ToyRunner()
        self.spec, self.block_size, self.num_blocks = runner.spec, runner.block_size, runner.num_blocks
        self.block_bytes, self.step, self.logits = runner.block_bytes, runner.step, runner.logits
        self.copy_block, self.copy_slots, self.close = runner.copy_block, runner.copy_slots, runner.close


def test_a_runner_that_takes_tokens_only_refuses() -> None:
    with pytest.raises(Incompatible, match="takes tokens only"):
        toy_engine(runner=TokensOnly()).add(asked("a", IMAGE))


def test_spans_that_do_not_fit_are_refused() -> None:
    good = asked("a", IMAGE)
    span = good.embedded[0]
    wrong = {
        "of 4 numbers": replace(good, embedded=(EmbeddedSpan.of(3, IMAGE[:, :4]),)),
        "of a prompt of 20": replace(good, embedded=(replace(span, start=15),)),
        "apart": replace(good, embedded=(span, replace(span, start=5))),
        "not finite": replace(good, embedded=(EmbeddedSpan.of(3, IMAGE * np.inf),)),
    }
    for words, request in wrong.items():
        with pytest.raises(InvalidRequest, match=words):
            toy_engine().add(request)
    with pytest.raises(Incompatible, match="log prob"):
        toy_engine().add(replace(good, sampling=Sampling(prompt_logprobs=0)))
    with pytest.raises(ValueError, match="digest"):
        replace(span, digest=b"short")
