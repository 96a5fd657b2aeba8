"""Whatever the engine does with blocks and batches, the tokens are those of the model alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pentad.errors import InvalidRequest
from pentad.execution.batch import RaggedBatch
from pentad.execution.engine import Engine
from pentad.execution.request import TokenRequest
from pentad.execution.scheduling import SchedulerInput, StepPlan
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, run, token_request, toy_engine
from pentad.testing.runners import ToyRunner, greedy, reference
from pentad.testing.schedulers import ArbitraryScheduler
from pentad.types import Sampling


def prompts(count: int, seed: int = 0, longest: int = 40) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(97) for _ in range(rng.randint(1, longest))) for _ in range(count)]


def mixed_requests(count: int, seed: int = 0) -> list[TokenRequest]:
    """Greedy and sampled requests with every kind of option that depends on history."""
    rng = random.Random(seed)
    options = [
        Sampling(temperature=0),
        Sampling(temperature=0.9, top_p=0.8),
        Sampling(temperature=1.2, top_k=10, frequency_penalty=0.5),
        Sampling(temperature=0, repetition_penalty=1.8, presence_penalty=0.4),
        Sampling(temperature=1.0, min_p=0.05, min_tokens=4, stop_token_ids=tuple(range(30))),
        Sampling(temperature=0.7, logit_bias={3: 2.0, 4: -2.0}, ignore_eos=True),
    ]
    return [
        token_request(
            f"r{i}",
            prompt,
            rng.randint(1, 20),
            sampling=rng.choice(options),
            seed=rng.randrange(100),
            choice=rng.randrange(3),
            end_tokens=frozenset({5, 6, 7}),
        )
        for i, prompt in enumerate(prompts(count, seed))
    ]


def assert_reference(answers: dict[str, Answer], requests: list[TokenRequest]) -> None:
    assert answers.keys() == {request.id for request in requests}
    for request in requests:
        answer = answers[request.id]
        assert answer.tokens == reference(request), request
        assert answer.finish in ("stop", "length")
        assert answer.stats is not None
        assert answer.stats.prompt_tokens == len(request.prompt)
        assert answer.stats.completion_tokens == len(answer.tokens)


def test_a_paged_sequence_equals_contiguous_recomputation() -> None:
    for i, prompt in enumerate(prompts(20)):
        answers = run(toy_engine(), token_request(f"r{i}", prompt, 12))
        assert answers[f"r{i}"].tokens == greedy(prompt, 12)


@pytest.mark.parametrize("scheduler", [Fcfs(), Fcfs(prefill_first=False), Sarathi()])
def test_batched_equals_alone_under_every_scheduler(scheduler: Fcfs | Sarathi) -> None:
    requests = mixed_requests(60)
    engine = toy_engine(scheduler)
    assert_reference(run(engine, *requests), requests)
    assert engine.stats()["steps_total"] < sum(r.max_tokens for r in requests) / 3


@pytest.mark.parametrize("max_batch_tokens", [1, 3, 7, 64])
def test_a_chunked_prefill_equals_a_whole_one(max_batch_tokens: int) -> None:
    requests = mixed_requests(12, seed=1)
    engine = toy_engine(Sarathi(), max_batch_tokens=max_batch_tokens)
    assert_reference(run(engine, *requests), requests)


@pytest.mark.row("ag-preempt", "mechanism", claims=(1,))
def test_preempted_equals_undisturbed() -> None:
    requests = mixed_requests(30, seed=2)
    engine = toy_engine(ArbitraryScheduler(1, preempt_probability=0.5), max_sequences=5)
    answers = run(engine, *requests)
    assert_reference(answers, requests)
    preemptions = [answer.stats.preemptions for answer in answers.values() if answer.stats]
    assert sum(preemptions) == engine.stats()["preemptions_total"] > 50


def test_a_pool_under_pressure_preempts_and_evicts_and_answers_the_same() -> None:
    requests = mixed_requests(40, seed=3)
    runner = ToyRunner(num_blocks=16)  # 64 slots for sequences of up to 60 tokens
    engine = toy_engine(Sarathi(), runner=runner, max_batch_tokens=16)
    assert_reference(run(engine, *requests), requests)
    assert engine.stats()["preemptions_total"] > 0
    assert engine.stats()["kv_evictions_total"] > 50


def test_penalties_count_generated_tokens_too() -> None:
    runner = ToyRunner(vocab_size=12)  # few tokens, so that they repeat
    sampling = Sampling(temperature=0, repetition_penalty=1.3, frequency_penalty=0.2, presence_penalty=0.3)
    request = token_request("a", [1, 2], 40, sampling=sampling)
    answer = run(toy_engine(ArbitraryScheduler(4, preempt_probability=0.3), runner=runner), request)["a"]
    assert answer.tokens == reference(request, vocab_size=12) != greedy([1, 2], 40, vocab_size=12)


@pytest.mark.parametrize("block_size", [1, 2, 16, 64])
def test_the_block_size_does_not_show(block_size: int) -> None:
    requests = mixed_requests(15, seed=4)
    runner = ToyRunner(num_blocks=512 // block_size, block_size=block_size)
    assert_reference(run(toy_engine(Sarathi(), runner=runner), *requests), requests)


@pytest.mark.parametrize("prompt_tokens", [1, 4, 5, 31, 32, 33])
def test_a_prefix_hit_equals_a_cold_start_and_computes_only_the_rest(prompt_tokens: int) -> None:
    prompt = tuple(range(prompt_tokens))
    runner = ToyRunner()
    engine = toy_engine(runner=runner)
    cold = run(engine, token_request("cold", prompt))["cold"]
    computed = runner.tokens_computed
    warm = run(engine, token_request("warm", prompt))["warm"]
    assert warm.tokens == cold.tokens == greedy(prompt, 8)
    supplied = (prompt_tokens - 1) // 4 * 4  # whole blocks, and at least one token is computed
    assert warm.stats is not None
    assert warm.stats.cached_tokens == supplied
    assert runner.tokens_computed - computed == computed - supplied
    assert engine.stats()["prefix_query_tokens_total"] == 2 * prompt_tokens
    assert engine.stats()["prefix_hit_tokens_total"] == supplied


def test_generated_tokens_are_found_again_in_the_next_turn_of_a_conversation() -> None:
    engine = toy_engine()
    prompt = tuple(range(10))
    first = run(engine, token_request("a", prompt, 20))["a"]
    longer = (*prompt, *first.tokens, 1, 2, 3)
    second = run(engine, token_request("b", longer))["b"]
    assert second.stats is not None
    assert second.stats.cached_tokens == 28  # of 30, whose last was never computed
    assert second.tokens == greedy(longer, 8)


def test_without_a_prefix_cache_nothing_is_kept() -> None:
    engine = toy_engine(prefix_cache=False)
    for id in ("a", "b"):
        answer = run(engine, token_request(id, range(30)))[id]
        assert answer.tokens == greedy(range(30), 8)
        assert answer.stats is not None
        assert answer.stats.cached_tokens == 0
    assert engine.stats()["kv_blocks_cached"] == 0
    assert engine.stats()["prefix_query_tokens_total"] == 0


def test_equal_prompts_computed_side_by_side_end_up_on_the_same_blocks() -> None:
    held: list[float] = []
    engine: Engine

    def watch(batch: RaggedBatch) -> None:
        held.append(engine.stats()["kv_blocks_held"])

    engine = toy_engine(Sarathi(), runner=ToyRunner(before_step=watch), max_batch_tokens=128)
    requests = [token_request(f"r{i}", range(32), 3) for i in range(4)]
    assert_reference(run(engine, *requests), requests)
    assert held[0] == 32  # all four prompts at once: nobody could know
    assert held[1] == 8 + 4  # merged when they were registered


@pytest.mark.parametrize("prompt_tokens", [1, 2, 4, 5, 8, 23, 24, 25])
@pytest.mark.parametrize("prefix_cache", [True, False])
def test_choices_of_one_prompt_compute_it_once(prompt_tokens: int, prefix_cache: bool) -> None:
    prompt = tuple(range(prompt_tokens))
    sampling = Sampling(temperature=1.0)
    requests = [token_request(f"c{i}", prompt, 6, sampling=sampling, seed=9, choice=i) for i in range(4)]
    runner = ToyRunner()
    engine = toy_engine(runner=runner, prefix_cache=prefix_cache)
    engine.add(*requests)
    answers = run(engine)
    assert_reference(answers, requests)
    assert len({tuple(answer.tokens) for answer in answers.values()}) == 4
    # Each choice computes 5 of its own tokens; followers repeat the last of the prompt.
    assert runner.tokens_computed == prompt_tokens + 3 + 4 * 5
    shared_part = (prompt_tokens - 1) % 4
    assert len(runner.copies) == (3 if shared_part else 0)


def test_choices_share_all_full_blocks_of_their_prompt() -> None:
    most = 0.0
    engine: Engine

    def watch(batch: RaggedBatch) -> None:
        nonlocal most
        most = max(most, engine.stats()["kv_blocks_held"])

    engine = toy_engine(Sarathi(), runner=ToyRunner(before_step=watch))
    engine.add(*(token_request(f"c{i}", range(42), 3, choice=i) for i in range(8)))
    run(engine)
    assert most == 10 + 8  # ten full blocks together, and one of their own each


def test_choices_survive_arbitrary_plans_and_the_end_of_their_leader() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        prompt = tuple(rng.randrange(97) for _ in range(rng.randint(1, 30)))
        sampling = Sampling(temperature=0.8)
        requests = [
            token_request(f"c{i}", prompt, rng.randint(1, 12), sampling=sampling, seed=seed, choice=i)
            for i in range(6)
        ]
        engine = toy_engine(
            ArbitraryScheduler(seed, preempt_probability=0.3),
            runner=ToyRunner(num_blocks=20),
            max_sequences=3,
            max_batch_tokens=9,
            prefix_cache=bool(seed % 2),
        )
        engine.add(*requests)
        assert_reference(run(engine), requests)


def test_when_a_leader_is_cancelled_during_prefill_another_choice_takes_over() -> None:
    requests = [token_request(f"c{i}", range(40), 4, choice=i) for i in range(3)]
    engine = toy_engine(Sarathi(), max_batch_tokens=8)
    engine.add(*requests)
    engine.step()
    assert engine.cancel("c0")
    answers = run(engine)
    assert answers["c0"].finish == "cancelled"
    for id in ("c1", "c2"):
        assert answers[id].tokens == greedy(range(40), 4)


def test_the_same_seed_repeats_and_another_seed_differs() -> None:
    def sample(id: str, seed: int, **others: int) -> list[int]:
        sampling = Sampling(temperature=1.0)
        request = token_request(id, range(9), 16, sampling=sampling, seed=seed, **others)
        return run(toy_engine(), request)[id].tokens

    assert sample("a", 1) == sample("b", 1)
    assert sample("a", 1) != sample("a", 2)
    assert sample("a", 1) != sample("a", 1, choice=1)


class PreemptOnce:
    """Runs everything at once, and preempts once, when a sequence has generated so many tokens."""

    name = "preempt once"

    def __init__(self, generated: int) -> None:
        self.generated: int | None = generated
        self.cached: list[int] = []

    def plan(self, state: SchedulerInput) -> StepPlan:
        self.cached += [seq.num_cached for seq in state.waiting]
        if state.running and state.running[0].num_generated == self.generated:
            self.generated = None
            return StepPlan(preempt=tuple(state.running))
        return StepPlan(
            work=tuple((seq, seq.num_tokens - seq.num_cached) for seq in state.waiting)
            + tuple((seq, seq.num_tokens - seq.num_computed) for seq in state.running)
        )


def test_a_preempted_sequence_sees_that_its_own_blocks_are_still_there() -> None:
    scheduler = PreemptOnce(8)
    answer = run(toy_engine(scheduler), token_request("a", range(5), 12))["a"]
    assert answer.tokens == greedy(range(5), 12)
    assert scheduler.cached == [0, 12]  # of 13 tokens


def test_a_preempted_sequence_sees_blocks_that_others_computed_before() -> None:
    scheduler = PreemptOnce(99)
    engine = toy_engine(scheduler)
    run(engine, token_request("before", range(3), 12))
    scheduler.generated = 3
    answer = run(engine, token_request("a", range(3), 12))["a"]
    assert answer.tokens == greedy(range(3), 12)
    assert scheduler.cached == [0, 0, 4]  # too short for a whole block at first, 6 tokens later


@pytest.mark.parametrize("salts", [("t1", "", "t2", ""), ("t1", "x", "t1", "y")])
def test_tenants_and_salts_share_no_blocks(salts: tuple[str, str, str, str]) -> None:
    first_tenant, first_salt, second_tenant, second_salt = salts
    runner = ToyRunner()
    engine = toy_engine(runner=runner)
    first = token_request("a", range(32), tenant=first_tenant, cache_salt=first_salt)
    second = token_request("b", range(32), tenant=second_tenant, cache_salt=second_salt)
    run(engine, first)
    computed = runner.tokens_computed
    answer = run(engine, second)["b"]
    assert answer.stats is not None
    assert answer.stats.cached_tokens == 0
    assert runner.tokens_computed == 2 * computed  # nothing to see in the time either
    again = run(engine, token_request("c", range(32), tenant=first_tenant, cache_salt=first_salt))["c"]
    assert again.stats is not None
    assert again.stats.cached_tokens == 28


@pytest.mark.parametrize("begun", [1, 2, 7])
def test_an_answer_that_goes_on_elsewhere_is_the_same(begun: int) -> None:
    """What another engine drew is given with the request; the rest comes out, and only the rest."""
    requests = mixed_requests(40, seed=begun)
    whole = run(toy_engine(Sarathi()), *requests)
    cut = [replace(r, generated=tuple(whole[r.id].tokens[:begun])) for r in requests]
    cut = [r for r in cut if len(whole[r.id].tokens) > begun]
    assert len(cut) > 10
    rest = run(toy_engine(Sarathi()), *cut)
    for request in cut:
        answer, before = rest[request.id], whole[request.id]
        assert [*request.generated, *answer.tokens] == before.tokens
        assert answer.finish == before.finish
        assert answer.stats is not None
        assert answer.stats.completion_tokens == len(before.tokens)
        assert answer.stats.prompt_tokens == len(request.prompt)


def test_an_answer_that_goes_on_needs_room_for_one_more_token() -> None:
    with pytest.raises(InvalidRequest, match="max_tokens is 3; ask for at least 4"):
        toy_engine(Sarathi()).add(token_request("a", range(4), 3, generated=(1, 2, 3)))
