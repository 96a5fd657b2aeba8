"""What every registered KV policy keeps to, on a toy model that notices every error of paging."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from kv_policy_support import HEADS, greedy, runner
from pentad import registry
from pentad.choice import Choice, build
from pentad.execution.engine import Engine
from pentad.execution.kv.policy import KVPolicy
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import run, token_request, toy_engine
from pentad.testing.runners import toy_spec
from pentad.testing.schedulers import ArbitraryScheduler

SMALL: dict[str, dict[str, Any]] = {
    "sinks": {"first": 2, "last": 7},
    "accumulated-attention": {"heavy": 5, "recent": 4},
    "head-profile": {"first": 1, "recovery": 0.6},
    "retrieval-heads": {"heads": [0], "first": 1, "last": 5},
}
"""Options of each strategy that make it drop most of a text of some ten tokens."""
NAMES = registry.known("kv_policy")


def policy_of(name: str) -> KVPolicy:
    policy: KVPolicy = build("kv_policy", Choice(name=name, options=SMALL.get(name, {})))
    return policy


def prompts(count: int, seed: int = 0, longest: int = 30) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(97) for _ in range(rng.randint(1, longest))) for _ in range(count)]


@pytest.fixture(params=NAMES)
def policy(request: pytest.FixtureRequest) -> KVPolicy:
    return policy_of(request.param)


def answers(engine: Engine, texts: list[tuple[int, ...]], max_tokens: int = 20) -> list[list[int]]:
    found = run(engine, *(token_request(f"r{i}", text, max_tokens) for i, text in enumerate(texts)))
    assert not [answer.error for answer in found.values() if answer.error is not None]
    return [found[f"r{i}"].tokens for i in range(len(texts))]


def test_every_policy_that_drops_is_made_small_here() -> None:
    assert {name for name in NAMES if policy_of(name).exactness != "lossless"} == SMALL.keys()


def test_an_engine_answers_as_the_policy_alone(policy: KVPolicy) -> None:
    texts = prompts(8)
    engine = toy_engine(runner=runner(policy), kv_policy=policy)
    assert answers(engine, texts) == [greedy(policy, text, 20)[0] for text in texts]


@pytest.mark.parametrize("scheduler", [Fcfs(), Fcfs(prefill_first=False), Sarathi()], ids=str)
def test_company_and_schedule_change_nothing(policy: KVPolicy, scheduler: Fcfs | Sarathi) -> None:
    texts = prompts(12, seed=1)
    engine = toy_engine(scheduler, runner=runner(policy), kv_policy=policy, max_batch_tokens=9)
    assert answers(engine, texts) == [greedy(policy, text, 20)[0] for text in texts]


@pytest.mark.parametrize("seed", range(3))
def test_a_preempted_sequence_answers_as_one_that_was_not(policy: KVPolicy, seed: int) -> None:
    texts = prompts(6, seed=seed)
    scheduler = ArbitraryScheduler(seed, preempt_probability=0.04)
    engine = toy_engine(scheduler, runner=runner(policy, num_blocks=20), kv_policy=policy)
    assert answers(engine, texts) == [greedy(policy, text, 20)[0] for text in texts]
    assert engine.stats()["preemptions_total"] > 0


def test_shared_beginnings_change_nothing(policy: KVPolicy) -> None:
    beginning = prompts(1, seed=5)[0] * 2
    texts = [(*beginning, *text) for text in prompts(8, seed=6, longest=5)]
    engine = toy_engine(Sarathi(), runner=runner(policy), kv_policy=policy)
    found = [answers(engine, [text])[0] for text in texts]
    assert found == [greedy(policy, text, 20)[0] for text in texts]
    shares = "prefix-cache" not in policy.excludes
    assert (engine.stats()["prefix_hit_tokens_total"] > 0) == shares


def test_choices_of_one_prompt_answer_alike_though_their_leader_drops_it(policy: KVPolicy) -> None:
    text = prompts(1, seed=7)[0] * 2
    engine = toy_engine(Sarathi(), runner=runner(policy), kv_policy=policy)
    engine.add(*(token_request(f"c{i}", text, 15, choice=i) for i in range(4)))
    found = run(engine)
    assert {id: answer.tokens for id, answer in found.items()} == dict.fromkeys(
        ("c0", "c1", "c2", "c3"), greedy(policy, text, 15)[0]
    )


def test_the_pool_holds_what_the_policy_keeps_and_no_block_more(policy: KVPolicy) -> None:
    text = prompts(1, seed=8)[0] * 2
    toy = runner(policy)
    engine = toy_engine(Sarathi(), runner=toy, kv_policy=policy, prefix_cache=False)
    engine.add(token_request("r", text, 25))
    for computed in range(len(text), len(text) + 24):
        engine.step()
        lens = greedy(policy, text, computed - len(text) + 1)[1]
        pages = sum(-(-length // toy.block_size) for length in lens)
        held = engine.stats()["kv_blocks_held"]
        assert held == -(-pages // HEADS)
        assert max(lens) <= policy.cost(len(text), computed).slots
    (last,) = run(engine).values()
    assert engine.stats()["kv_blocks_held"] == 0
    dropped = HEADS * computed - sum(lens)
    if dropped:
        assert engine.stats()["kv_entries_dropped_total"] == dropped
        decision = last.stats.decisions[0]  # type: ignore[union-attr]
        assert (decision.policy, decision.constraint) == (policy.name, "budget")
        assert dict(decision.candidates)["keep-all"] > dict(decision.candidates)[policy.name]


def test_equal_views_give_equal_answers(policy: KVPolicy) -> None:
    texts = prompts(4, seed=9)
    first, second = (
        toy_engine(Sarathi(), runner=runner(policy), kv_policy=policy_of(policy.name)) for _ in range(2)
    )
    assert answers(first, texts) == answers(second, texts)


def test_cost_grows_with_the_text_and_is_at_most_all_of_it(policy: KVPolicy) -> None:
    slots = [policy.cost(8, tokens).slots for tokens in (8, 16, 64, 1024)]
    assert slots == sorted(slots)
    assert all(slots <= tokens for slots, tokens in zip(slots, (8, 16, 64, 1024), strict=True))
    assert (policy.start(toy_spec()) is None) == (policy.exactness == "lossless")
    assert policy.cost(8, 8).scored == ("attention-scores" in policy.needs)


def test_keep_all_takes_the_way_of_no_policy() -> None:
    keep_all = toy_engine(kv_policy=policy_of("keep-all"))
    assert type(keep_all._kv) is type(toy_engine()._kv)
    text = np.arange(40) % 97
    assert answers(keep_all, [tuple(text)]) == answers(toy_engine(), [tuple(text)])
