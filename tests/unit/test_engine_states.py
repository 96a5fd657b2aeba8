"""Models with states: whatever the engine does with them, the tokens are those of the model alone."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest

from native_support import HERE, random_weights, tiny_spec
from pentad.errors import Incompatible
from pentad.execution.batch import Drawn, RaggedBatch, SampleRow
from pentad.execution.checks import check_window
from pentad.execution.kv.states import StateRows, snapshot_rows
from pentad.execution.layers import Block, FeedForward
from pentad.execution.mixers import Attention, Recurrent, ShortConvolution
from pentad.execution.native.runner import NativeRunner
from pentad.execution.positions import Rope
from pentad.execution.request import TokenRequest
from pentad.execution.spec import Head, ModelSpec, Norm, Stack
from pentad.execution.torch.runner import TorchRunner
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, run, token_request, toy_engine
from pentad.testing.runners import ToyRunner
from pentad.testing.schedulers import ArbitraryScheduler
from ragged_batches import ragged
from torch_reference import ArrayWeights, tiny_arrays

V = 97
MIXERS = (
    Recurrent(rule="gated_delta", heads=4, value_dim=8, groups=2, key_dim=8, conv_bias=False),
    Attention(heads=4, kv_heads=2, head_dim=8, positions=Rope(dim=8), output_gate=True),
    Recurrent(rule="mamba2", heads=4, value_dim=8, groups=1, key_dim=16),
    ShortConvolution(channels=32),
)
SPEC = ModelSpec(
    name="tiny",
    family="tiny",
    vocab_size=V,
    context_length=256,
    stack=Stack(
        width=32,
        blocks=tuple(Block(mixer=mixer, feed_forward=FeedForward(width=48)) for mixer in MIXERS),
        final_norm=Norm(),
    ),
    head=Head(),
)
WEIGHTS = ArrayWeights(tiny_arrays(SPEC))


class Breaking(TorchRunner):
    """Fails when it is told to."""

    breaks = False

    def step(self, batch: RaggedBatch, rows: Any) -> list[Drawn]:
        if self.breaks:
            super().step(batch, rows)  # states and snapshots are written all the same
            raise RuntimeError("broken")
        return super().step(batch, rows)


def loaded(num_blocks: int = 64) -> Breaking:
    runner = Breaking.load(SPEC, WEIGHTS, num_blocks=num_blocks, dtype="float32")
    assert isinstance(runner, Breaking)
    return runner


@pytest.fixture(scope="module")
def alone() -> Any:
    """What the model gives behind a prompt, computed at once from nothing for each token."""
    runner = loaded()
    known: dict[tuple[tuple[int, ...], int], list[int]] = {}

    def tokens(prompt: tuple[int, ...], count: int) -> list[int]:
        if (prompt, count) not in known:
            text = list(prompt)
            for _ in range(count):
                batch = ragged([(text, 0, range(-(-len(text) // 16)))], rows=[len(text) - 1])
                batch = dataclasses.replace(batch, state_rows=np.zeros(1, np.int32))
                text.append(runner.step(batch, [SampleRow(temperature=0)])[0].token)
            known[prompt, count] = text[len(prompt) :]
        return known[prompt, count]

    return tokens


def requests(count: int, seed: int = 0) -> list[TokenRequest]:
    """Some begin with the same 40 tokens."""
    rng = random.Random(seed)
    shared = [rng.randrange(V) for _ in range(40)]
    return [
        token_request(
            f"r{seed}.{i}",
            [*(shared if i % 2 else []), *(rng.randrange(V) for _ in range(rng.randint(1, 50)))],
            rng.randint(1, 20),
            sampling=None,
        )
        for i in range(count)
    ]


def assert_alone(answers: dict[str, Answer], asked: list[TokenRequest], alone: Any) -> None:
    assert answers.keys() == {request.id for request in asked}
    for request in asked:
        assert answers[request.id].error is None
        assert answers[request.id].tokens == alone(request.prompt, request.max_tokens), request.id


@pytest.mark.parametrize("max_batch_tokens", [5, 23, 200])
def test_batched_and_in_chunks_equals_alone(max_batch_tokens: int, alone: Any) -> None:
    asked = requests(10)
    engine = toy_engine(Sarathi(), runner=loaded(), max_batch_tokens=max_batch_tokens, max_sequences=4)
    assert_alone(run(engine, *asked), asked, alone)


def large(num_blocks: int) -> NativeRunner:
    """The same kinds of layers on the native kernels, which compute them in wider vectors."""
    spec, inner = tiny_spec(), FeedForward(width=64)
    mixers = (
        Recurrent(rule="gated_delta", heads=4, value_dim=32, groups=2, key_dim=16, conv_bias=False),
        Attention(heads=4, kv_heads=2, head_dim=32, positions=Rope(dim=32), output_gate=True),
        Recurrent(rule="mamba2", heads=4, value_dim=16, groups=1, key_dim=16),
        ShortConvolution(channels=32),
    )
    blocks = tuple(Block(mixer=mixer, feed_forward=inner) for mixer in mixers)
    spec = dataclasses.replace(spec, stack=dataclasses.replace(spec.stack, width=64, blocks=blocks))
    kernels = next(name for name in HERE if name != "amx")
    weights = random_weights(spec, "Q8_0")
    return NativeRunner.load(spec, weights, num_blocks=num_blocks, threads=2, kernels=kernels)


@pytest.mark.skipif(not HERE, reason="no native kernels are built")
@pytest.mark.parametrize("seed", range(2))
def test_on_the_native_kernels_batches_chunks_preemptions_and_snapshots_change_no_token(seed: int) -> None:
    runner, asked = large(64), requests(8, seed)
    alone = {}
    for request in asked:
        engine = toy_engine(Sarathi(), runner=runner, max_batch_tokens=200, prefix_cache=False)
        alone |= {request.id: run(engine, request)[request.id].tokens}
    small = large(12)
    engine = toy_engine(ArbitraryScheduler(seed, preempt_probability=0.2), runner=small, max_sequences=4)
    for _ in range(2):  # the second time prompts are found
        answers = run(engine, *asked)
        assert {id: answer.tokens for id, answer in answers.items()} == alone
    assert engine.stats()["preemptions_total"] > 0
    assert engine.stats()["prefix_hit_tokens_total"] > 0
    runner.close()
    small.close()


@pytest.mark.parametrize("seed", range(3))
def test_preempted_sequences_get_the_same_tokens(seed: int, alone: Any) -> None:
    asked = requests(8, seed)
    scheduler = ArbitraryScheduler(seed, preempt_probability=0.2)
    engine = toy_engine(scheduler, runner=loaded(12), max_sequences=4)
    assert_alone(run(engine, *asked), asked, alone)
    assert engine.stats()["preemptions_total"] > 0


def test_a_prompt_is_found_where_a_snapshot_stands_behind_it(alone: Any) -> None:
    """The same prompt, a longer one, and what goes on from the answer; never anywhere between snapshots."""
    engine = toy_engine(Sarathi(), runner=loaded(), max_batch_tokens=200)
    prompt = tuple(random.Random(5).randrange(V) for _ in range(70))
    first = token_request("first", prompt, 40)
    answer = run(engine, first)["first"].tokens
    again = token_request("again", prompt, 8)
    longer = token_request("longer", (*prompt, 1, 2, 3), 8)
    turn = token_request("turn", (*prompt, *answer, 1, 2, 3), 8)
    shorter = token_request("shorter", prompt[:50], 8)  # its blocks are known, no state behind them is
    cached = {}
    for request in (again, longer, turn, shorter):
        found = run(engine, request)
        assert_alone(found, [request], alone)
        stats = found[request.id].stats
        assert stats is not None
        cached[request.id] = stats.cached_tokens
    assert cached == {"again": 64, "longer": 64, "turn": 96, "shorter": 0}


def test_choices_of_one_prompt_share_its_state(alone: Any) -> None:
    prompt = tuple(random.Random(6).randrange(V) for _ in range(45))
    engine = toy_engine(Sarathi(), runner=loaded(), max_batch_tokens=64)
    asked = [token_request(f"c/{i}", prompt, 12, choice=i) for i in range(3)]
    engine.add(*asked)
    assert_alone(run(engine), asked, alone)
    assert engine.stats()["prefix_hit_tokens_total"] == 2 * 32


def test_without_a_prefix_cache_each_choice_computes_its_own(alone: Any) -> None:
    prompt = tuple(random.Random(7).randrange(V) for _ in range(45))
    engine = toy_engine(Sarathi(), runner=loaded(), prefix_cache=False)
    asked = [token_request(f"c/{i}", prompt, 12, choice=i) for i in range(3)]
    engine.add(*asked)
    assert_alone(run(engine), asked, alone)


def test_snapshots_of_a_step_that_failed_are_never_found(alone: Any) -> None:
    runner = loaded()
    engine = toy_engine(Sarathi(), runner=runner, max_batch_tokens=200)
    prompt = tuple(random.Random(8).randrange(V) for _ in range(40))
    runner.breaks = True
    assert run(engine, token_request("a", prompt, 4))["a"].error is not None
    runner.breaks = False
    request = token_request("b", prompt, 4)
    found = run(engine, request)
    assert_alone(found, [request], alone)
    assert found["b"].stats is not None
    assert found["b"].stats.cached_tokens == 0


def test_few_rows_go_to_what_was_used_last() -> None:
    rows = StateRows(4, 2)
    assert [rows.save(b"a"), rows.save(b"b"), rows.save(b"a")] == [4, 5, None]
    assert rows.known([b"a"]) == 0, "not before its step has succeeded"
    rows.settle(succeeded=True)
    assert rows.known([b"a", b"x", b"b", b"y"]) == 3
    rows.restore(b"a", 2)
    assert rows.take_copies() == [(4, 2)]
    assert rows.take_copies() == []
    assert rows.save(b"c") == 5, "b was used longest ago"
    rows.settle(succeeded=False)
    assert (rows.known([b"a"]), rows.known([b"b"]), rows.known([b"c"])) == (1, 0, 0)
    rows.check_integrity(4)


def test_snapshots_take_a_part_of_the_cache() -> None:
    assert snapshot_rows(1 << 20, 1 << 30) == 256
    assert snapshot_rows(1 << 22, 1 << 30) == 64
    assert snapshot_rows(1 << 30, 1 << 30) == 16


def test_what_cannot_be_combined_with_states_is_refused() -> None:
    with pytest.raises(Incompatible, match="model 'tiny' has states") as error:
        check_window(SPEC)
    assert error.value.hint == "set --speculation none"
    toy = ToyRunner()
    toy.spec = SPEC  # type: ignore[misc]
    with pytest.raises(Incompatible, match="ToyRunner holds no states"):
        toy_engine(Sarathi(), runner=toy)
