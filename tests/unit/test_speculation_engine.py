"""Speculation composes with everything else that an engine does, and changes no token."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest

from pentad.errors import BackendFailed, Incompatible, InvalidRequest
from pentad.execution.batch import Drawn, RaggedBatch
from pentad.execution.request import TokenRequest
from pentad.execution.speculation.stage import Speculation
from pentad.model.speculation.base import DraftStrategy
from pentad.model.speculation.draft import DraftModel
from pentad.model.speculation.sequoia import Sequoia
from pentad.model.speculation.specinfer import SpecInfer
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, run, token_request, toy_engine
from pentad.testing.runners import ToyRunner, greedy, reference, toy_logits
from pentad.testing.schedulers import ArbitraryScheduler
from pentad.testing.speculators import ArbitrarySpeculator
from pentad.types import Sampling
from speculation_support import STRATEGIES, speculating

by_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
drawing = pytest.mark.parametrize("strategy", STRATEGIES[1:], ids=lambda strategy: strategy.name)


def knowing(seed: int, requests: Sequence[TokenRequest], **options: float) -> ArbitrarySpeculator:
    """Drafts of which most are right, since it knows what each request must get."""
    answers = {request.id: [*request.prompt, *reference(request), 0] for request in requests}

    def oracle(id: str, text: Sequence[int]) -> int:
        return answers[id][min(len(text), len(answers[id]) - 1)]

    return ArbitrarySpeculator(seed, 97, oracle=oracle, **{"hit_probability": 0.9, **options})  # type: ignore[arg-type]


def check(answers: dict[str, Answer], requests: Sequence[TokenRequest]) -> None:
    for request in requests:
        assert answers[request.id].tokens == reference(request), request.id


@pytest.mark.row("sd-leviathan", "mechanism", claims=(1,))
@pytest.mark.row("cpu-llma", "mechanism")
@pytest.mark.row("sd-specinfer", "mechanism", claims=(2,))
@pytest.mark.row("sd-sequoia", "mechanism")
@pytest.mark.row("sd-llmcad", "mechanism", claims=(2,))
@by_strategy
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_greedy_tokens_are_those_of_plain_decoding(strategy: DraftStrategy, noise: float) -> None:
    prompts = [[1, 2, 3] * 4, list(range(30)), [5], [7, 7, 7, 7]]
    requests = [token_request(f"r{i}", prompt, 30 + i) for i, prompt in enumerate(prompts)]
    engine = speculating(strategy, noise=noise)
    check(run(engine, *requests), requests)
    stats = engine.stats()
    assert stats["draft_tokens_total"] > 0
    if strategy.needs.least_drafts:
        assert stats["draft_accepted_tokens_total"] > 0
        assert stats["steps_total"] < 33
    assert stats["kv_blocks_held"] == 0


@drawing
def test_a_perfect_draft_model_is_always_believed(strategy: DraftStrategy) -> None:
    """Also a test of the draft model's cache: one wrong key or mask, and its guesses would differ."""
    requests = [token_request(f"r{i}", range(i, i + 9), 40) for i in range(3)]
    engine = speculating(strategy, noise=0.0, most_tokens=15)
    check(run(engine, *requests), requests)
    stats = engine.stats()
    # A toy is right, yet never very sure: llmcad soon asks the target.
    levels = {"draft": 15, "specinfer": 3, "sequoia": 8, "llmcad": 2}[strategy.name]
    assert stats["draft_accepted_tokens_total"] / stats["draft_verifications_total"] > 0.75 * levels
    assert stats["steps_total"] <= 2 + 40 / (0.75 * levels)


def test_chosen_drafts_leave_even_sampled_tokens_as_they_are() -> None:
    samplings = [
        Sampling(temperature=1.0),
        Sampling(temperature=0.8, top_k=20, frequency_penalty=0.7, presence_penalty=0.2),
        Sampling(temperature=1.2, top_p=0.9, min_p=0.01, repetition_penalty=1.3),
        Sampling(temperature=0, repetition_penalty=1.5),
        Sampling(temperature=0.7, logit_bias={3: 4.0, 5: -100.0}),
    ]
    requests = [
        token_request(f"r{i}", range(i + 1), 24, sampling=sampling, seed=i)
        for i, sampling in enumerate(samplings)
    ]
    engine = speculating(knowing(1, requests))
    check(run(engine, *requests), requests)
    assert engine.stats()["draft_accepted_tokens_total"] > 40


@pytest.mark.parametrize("min_tokens", [0, 3, 7, 12])
@pytest.mark.parametrize("max_tokens", [1, 2, 5, 13])
def test_ends_within_a_draft_are_kept_to_the_token(min_tokens: int, max_tokens: int) -> None:
    stops = tuple(range(0, 97, 6))
    sampling = Sampling(temperature=0, min_tokens=min(min_tokens, max_tokens), stop_token_ids=stops[:8])
    requests = [
        token_request(f"r{i}", (i, 2), max_tokens, sampling=sampling, end_tokens=frozenset(stops[8:]))
        for i in range(20)
    ]
    answers = run(speculating(knowing(2, requests, hit_probability=1.0, chains=True)), *requests)
    check(answers, requests)
    for request in requests:
        tokens, finish = answers[request.id].tokens, answers[request.id].finish
        assert finish == ("stop" if tokens[-1] in stops else "length")


def test_ignored_ends_are_drafted_through() -> None:
    ends = frozenset(range(0, 97, 3))
    sampling = Sampling(temperature=0, ignore_eos=True)
    requests = [token_request("a", range(5), 30, sampling=sampling, end_tokens=ends)]
    engine = speculating(knowing(3, requests, hit_probability=1.0, chains=True))
    assert run(engine, *requests)["a"].tokens == greedy(range(5), 30)
    assert engine.stats()["steps_total"] < 15


class StopAt:
    """A watcher that ends the sequence with its n-th token, and asserts that no further one comes."""

    def __init__(self, tokens: int) -> None:
        self.left = tokens

    def accept(self, drawn: Drawn) -> bool:
        self.left -= 1
        assert self.left >= 0
        return self.left == 0


@pytest.mark.parametrize("tokens", range(1, 9))
def test_a_watcher_sees_tokens_one_by_one_and_none_behind_its_stop(tokens: int) -> None:
    request = token_request("a", range(6), 20, watcher=StopAt(tokens))
    answer = run(speculating(knowing(4, [request], hit_probability=1.0, chains=True)), request)["a"]
    assert answer.tokens == greedy(range(6), tokens)
    assert answer.finish == "stop"


def test_a_watcher_that_raises_keeps_what_came_before() -> None:
    class Breaks(StopAt):
        def accept(self, drawn: Drawn) -> bool:
            if super().accept(drawn):
                raise RuntimeError("full")
            return False

    request = token_request("a", range(6), 20, watcher=Breaks(4))
    engine = speculating(knowing(4, [request], hit_probability=1.0, chains=True))
    answer = run(engine, request)["a"]
    assert isinstance(answer.error, BackendFailed)
    assert answer.tokens == greedy(range(6), len(answer.tokens))
    assert answer.stats is not None
    assert engine.stats()["kv_blocks_held"] == 0


class Alternating:
    """A format of even and odd tokens in turn, which ends with token 0 behind `length` tokens."""

    def __init__(self, length: int, taken: int = 0, forks: list[int] | None = None) -> None:
        self.length = length
        self.taken = taken
        self.forks = [0] if forks is None else forks

    def mask(self) -> np.ndarray:
        if self.taken >= self.length:
            return np.array([1, 0, 0, 0], dtype=np.uint32)
        return np.array([0x5555_5554 << (self.taken % 2) & 0xFFFF_FFFF] * 4, dtype=np.uint32)

    def accept(self, token: int) -> None:
        if not self.mask()[token // 32] >> (token % 32) & 1:
            raise ValueError(f"token {token} is forbidden")
        self.taken += 1

    def finished(self) -> bool:
        return self.taken > self.length

    def fork(self) -> Alternating:
        self.forks[0] += 1
        return Alternating(self.length, self.taken, self.forks)


@by_strategy
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_format_holds_along_drafts_and_is_advanced_by_what_is_accepted_only(
    strategy: DraftStrategy, temperature: float
) -> None:
    sampling = Sampling(temperature=temperature)
    plain = [Alternating(12) for _ in range(6)]
    drafted = [Alternating(12) for _ in range(6)]
    requests = [
        [
            token_request(f"r{i}", [2, 3] * 4, 40, sampling=sampling, seed=i, constraint=constraint)
            for i, constraint in enumerate(constraints)
        ]
        for constraints in (plain, drafted)
    ]
    expected = run(toy_engine(Sarathi()), *requests[0])
    engine = speculating(strategy, noise=0.1)
    answers = run(engine, *requests[1])
    for i in range(6):
        tokens = answers[f"r{i}"].tokens
        assert len(tokens) == 13
        assert tokens[-1] == 0
        assert all(token % 2 == place % 2 for place, token in enumerate(tokens[:-1]))
        assert drafted[i].taken == 13
        assert answers[f"r{i}"].finish == "stop"
        if temperature == 0:
            assert tokens == expected[f"r{i}"].tokens
    assert sum(constraint.forks[0] for constraint in drafted) > 0
    if strategy.needs.least_drafts:
        assert engine.stats()["draft_accepted_tokens_total"] > 10


def test_drafts_that_the_format_forbids_are_not_computed() -> None:
    computed: list[int] = []
    runner = ToyRunner(before_step=lambda batch: computed.extend(batch.token_ids.tolist()))
    constraint = Alternating(9)
    request = token_request("a", (1, 2), 20, constraint=constraint)
    speculator = ArbitrarySpeculator(5, 97, chains=True)  # knows nothing of the format
    answer = run(speculating(speculator, runner=runner), request)["a"]
    assert len(answer.tokens) == 10
    assert len(computed) < 2 + 9 + 12  # half of a random chain's tokens fall out at once


def test_a_format_that_allows_nothing_ends_its_sequence_alone() -> None:
    class Nothing(Alternating):
        def mask(self) -> np.ndarray:
            return np.zeros(4, dtype=np.uint32)

    requests = [token_request("a", range(5), 9, constraint=Nothing(3)), token_request("b", range(5), 9)]
    answers = run(speculating(DraftModel(least_confidence=0)), *requests)
    assert isinstance(answers["a"].error, InvalidRequest)
    assert answers["b"].tokens == greedy(range(5), 9)


@by_strategy
def test_log_probabilities_are_the_models_own(strategy: DraftStrategy) -> None:
    request = token_request("a", [1, 2, 3] * 3, 20, sampling=Sampling(temperature=0.8, logprobs=2), seed=3)
    engine = speculating(strategy)
    engine.add(request)
    text = list(request.prompt)
    while engine.has_work:
        for output in engine.step():
            for drawn in output.drawn:
                logits = toy_logits(text).astype(np.float64)
                expected = logits - np.log(np.exp(logits).sum())
                assert drawn.logprob == pytest.approx(expected[drawn.token], abs=1e-5)
                best = np.argsort(-expected)[:2].tolist()
                assert [token for token, _ in drawn.alternatives] == best
                text.append(drawn.token)
    assert len(text) == 29


@by_strategy
def test_choices_of_one_prompt_share_it_and_draft_each_for_itself(strategy: DraftStrategy) -> None:
    runner = ToyRunner(block_size=4, num_blocks=256)
    requests = [token_request(f"c{i}", range(22), 20, choice=i, seed=1) for i in range(4)]
    engine = speculating(strategy, runner=runner)
    engine.add(*requests)
    check(run(engine), requests)
    assert runner.copies


@pytest.mark.parametrize("scheduler", [Sarathi(), Fcfs(), Fcfs(prefill_first=False), Sarathi(token_budget=6)])
def test_drafts_yield_to_prompts_and_keep_to_the_token_budget(scheduler: Sarathi | Fcfs) -> None:
    sizes: list[int] = []
    runner = ToyRunner(num_blocks=200, before_step=lambda batch: sizes.append(len(batch.token_ids)))
    requests = [token_request(f"r{i}", range(i, i + 20), 16) for i in range(6)]
    engine = speculating(knowing(6, requests), scheduler=scheduler, runner=runner, max_batch_tokens=12)
    for request in requests:
        engine.add(request)
        engine.step()
    check_later = run(engine)
    for request in requests:
        assert reference(request)[-len(check_later[request.id].tokens) :] == check_later[request.id].tokens
    assert max(sizes) <= 12
    assert engine.stats()["draft_accepted_tokens_total"] > 0


def test_without_room_for_drafts_decoding_goes_on() -> None:
    requests = [token_request(f"r{i}", (i,), 12) for i in range(8)]
    engine = speculating(knowing(7, requests), max_batch_tokens=8, max_sequences=8)
    check(run(engine, *requests), requests)
    assert engine.stats()["draft_tokens_total"] < 40


@pytest.mark.parametrize("seed", range(12))
def test_few_blocks_many_preemptions_and_cancellations_change_nothing(seed: int) -> None:
    requests = [token_request(f"r{i}", range(i, i + 5 + seed), 15, seed=i) for i in range(6)]
    runner = ToyRunner(num_blocks=14, block_size=3)
    engine = speculating(
        knowing(seed, requests, hit_probability=0.8),
        runner=runner,
        scheduler=ArbitraryScheduler(seed, preempt_probability=0.15),
        max_sequences=4,
        max_batch_tokens=20,
    )
    for request in requests:
        engine.add(request)
    for _ in range(6):
        engine.step()
    assert engine.cancel("r3") or engine.stats()["requests_finished_total"] > 0
    engine._scheduler = Sarathi()
    final = run(engine)
    for request in requests:
        if request.id in final and final[request.id].finish == "length":
            tokens = final[request.id].tokens
            assert reference(request)[-len(tokens) :] == tokens
    assert engine.stats()["kv_blocks_held"] == 0


def test_the_next_turn_finds_accepted_branches_in_the_prefix_cache() -> None:
    request = token_request("a", range(10), 30)
    engine = speculating(knowing(8, [request]))
    first = run(engine, request)["a"]
    assert engine.runner.slot_copies > 0  # type: ignore[attr-defined]
    longer = (*range(10), *first.tokens, 1, 2)
    second = token_request("b", longer, 8)
    engine._speculation = None
    answer = run(engine, second)["b"]
    assert answer.tokens == greedy(longer, 8)
    assert answer.stats is not None
    assert answer.stats.cached_tokens >= 36


def test_a_speculator_that_raises_costs_only_its_drafts(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ArbitrarySpeculator):
        def draft(self, asks):  # type: ignore[no-untyped-def]
            raise MemoryError

    with caplog.at_level(logging.ERROR):
        engine = speculating(Broken(0, 97))
        assert run(engine, token_request("a", range(5), 20))["a"].tokens == greedy(range(5), 20)
    assert len([r for r in caplog.records if "drafting" in r.message]) == 3
    assert "switched off" in caplog.text


def test_a_runner_that_fails_to_copy_slots_fails_the_step_and_nothing_else() -> None:
    class NoCopies(ToyRunner):
        def copy_slots(self, pairs):  # type: ignore[no-untyped-def]
            raise RuntimeError

    request = token_request("a", range(10), 40)
    engine = speculating(knowing(8, [request]), runner=NoCopies())
    answer = run(engine, request)["a"]
    assert isinstance(answer.error, BackendFailed)
    assert engine.failures_in_a_row == 1
    assert run(engine, token_request("b", range(10), 1))["b"].tokens == greedy(range(10), 1)
    assert engine.failures_in_a_row == 0


def test_logits_that_are_no_numbers_fail_their_sequence() -> None:
    class Nan(ToyRunner):
        def logits(self, batch: RaggedBatch) -> np.ndarray:
            return super().logits(batch) * (np.nan if len(batch.token_ids) == 4 else 1.0)

    engine = speculating(DraftModel(least_confidence=0), runner=Nan(), most_tokens=3)
    answer = run(engine, token_request("a", range(9), 20, sampling=Sampling(temperature=1.0)))["a"]
    assert isinstance(answer.error, BackendFailed)
    assert engine.failures_in_a_row == 0


def test_narrow_windows_and_speculation_do_not_go_together() -> None:

    runner = ToyRunner()
    runner.spec = runner.spec.with_attention(window=32)
    with pytest.raises(Incompatible, match="windows of 32 tokens, speculation needs 64"):
        speculating(DraftModel(least_confidence=0), runner=runner)


def test_whoever_ends_is_forgotten_and_closing_closes_the_speculator() -> None:
    speculator = ArbitrarySpeculator(0, 97)
    engine = speculating(speculator)
    run(engine, token_request("a", range(5), 9), token_request("b", range(5), 1))
    engine.add(token_request("c", range(5), 40))
    engine.step()
    engine.step()
    engine.cancel("c")
    assert speculator.forgotten == ["a", "c"]  # b never decoded
    engine.close()
    assert speculator.closed


def test_records_say_when_drafting_pays() -> None:
    request = token_request("a", range(6), 20)
    answer = run(speculating(knowing(9, [request])), request)["a"]
    assert answer.stats is not None
    decision = next(d for d in answer.stats.decisions if d.subject == "draft_tokens")
    assert decision.layer == "execution"
    assert decision.policy == "arbitrary"
    assert decision.chosen == "16"
    assert decision.constraint is None


def test_the_number_of_drafted_tokens_is_bounded() -> None:
    for most_tokens in (0, 65):
        with pytest.raises(ValueError, match="most_tokens is"):
            Speculation(ArbitrarySpeculator(0, 97), most_tokens=most_tokens)


@pytest.mark.parametrize(
    ("strategy", "drafts", "message"),
    [
        (DraftModel(least_confidence=0), 0, "speculation 'draft' needs 1 draft model, 0 are given"),
        (Sequoia(), 2, "speculation 'sequoia' uses at most 1 draft models, 2 are given"),
        (SpecInfer(), 5, "uses at most 4"),
        (STRATEGIES[0], 1, "uses at most 0"),
    ],
)
def test_strategies_refuse_too_few_or_too_many_draft_models(
    strategy: DraftStrategy, drafts: int, message: str
) -> None:
    with pytest.raises(Incompatible, match=message):
        strategy.start(97, [ToyRunner() for _ in range(drafts)])
