"""Rows of the coverage table whose mechanism the engine itself shows, on a toy model."""

from __future__ import annotations

import random

import pytest

from pentad.execution.batch import RaggedBatch
from pentad.execution.engine import Engine
from pentad.execution.request import TokenRequest
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, run, token_request, toy_engine
from pentad.testing.runners import ToyRunner, greedy, reference

CONTEXT_TOKENS = 2048


def conversation_mix(count: int) -> list[TokenRequest]:
    """Lengths spread like those of chat traces: long-tailed prompts, shorter answers."""
    rng = random.Random(11)
    requests = []
    for i in range(count):
        prompt_tokens = min(max(int(rng.lognormvariate(5.7, 0.8)), 16), 1500)
        answer_tokens = min(max(int(rng.lognormvariate(3.6, 0.6)), 4), 150)
        prompt = (i % 97, i // 97, *(rng.randrange(97) for _ in range(prompt_tokens)))
        requests.append(token_request(f"r{i}", prompt, answer_tokens))
    return requests


class Watch:
    """Adds up what the blocks of each step hold."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.used_slots = 0
        self.held_slots = 0
        self.most_sequences = 0

    def __call__(self, batch: RaggedBatch) -> None:
        self.used_slots += int(batch.context_lens.sum())
        self.held_slots += int((batch.block_tables >= 0).sum()) * self.block_size
        self.most_sequences = max(self.most_sequences, len(batch.context_lens))


@pytest.mark.row("mem-paged", "mechanism")
def test_paging_wastes_under_4_percent_and_holds_twice_the_sequences_of_contiguous_reservation() -> None:
    watch = Watch(16)
    slots = 6 * CONTEXT_TOKENS  # room for 6 sequences if each reserved the longest that it may become
    runner = ToyRunner(
        num_blocks=slots // 16, block_size=16, context_length=CONTEXT_TOKENS, before_step=watch
    )
    engine = toy_engine(
        Sarathi(), runner=runner, max_batch_tokens=512, max_sequences=64, check_invariants=False
    )
    requests = conversation_mix(48)
    answers = run(engine, *requests)
    waste = 1 - watch.used_slots / watch.held_slots
    print(f"waste {waste:.1%}, {watch.most_sequences} sequences at once where reservation holds 6")
    assert waste < 0.04
    assert watch.most_sequences >= 2 * 6
    for request in requests[:6]:  # each against contiguous recomputation
        assert answers[request.id].tokens == reference(request)


@pytest.mark.row("mem-paged", "mechanism")
def test_choices_share_their_prompts_blocks_and_copy_only_the_one_that_they_write() -> None:
    runner = ToyRunner(num_blocks=64, block_size=4)
    engine = toy_engine(Sarathi(), runner=runner)
    requests = [token_request(f"c{i}", range(42), 6, choice=i) for i in range(4)]
    engine.add(*requests)
    engine.step()
    engine.step()
    assert engine.stats()["kv_blocks_held"] == 10 + 4  # contiguous caches would hold 44
    assert len(runner.copies) == 3
    answers = run(engine)
    assert all(answers[request.id].tokens[-1] == greedy(range(42), 6)[-1] for request in requests)


@pytest.mark.row("ag-query-batch", "mechanism", claims=(2,))
def test_sequences_join_and_leave_the_batch_at_each_step_and_answer_as_if_served_in_turn() -> None:
    requests = [token_request(f"r{i}", (i, *range(10 + i)), 10 + 3 * i) for i in range(8)]
    members: list[int] = []
    runner = ToyRunner(before_step=lambda batch: members.append(len(batch.context_lens)))
    engine = toy_engine(Sarathi(), runner=runner)
    answers: dict[str, Answer] = {}
    for request in requests:  # one arrives per step, while the others generate
        engine.add(request)
        for output in engine.step():
            answers.setdefault(output.id, Answer()).take(output)
    for id, rest in run(engine).items():
        answers[id].tokens += rest.tokens
    assert members[:8] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert members[8:] == sorted(members[8:], reverse=True)
    assert members[-1] == 1
    for request in requests:
        assert answers[request.id].tokens == greedy(request.prompt, request.max_tokens)
    serial_steps = sum(request.max_tokens for request in requests)
    assert serial_steps >= 2 * len(members)


@pytest.mark.row("ag-preempt", "mechanism", claims=(2,))
@pytest.mark.parametrize("short_of", ["places", "blocks"])
def test_an_urgent_request_starts_within_one_step_and_the_preempted_ends_as_if_undisturbed(
    short_of: str,
) -> None:
    def busy_engine() -> Engine:
        blocks, places = (64, 4) if short_of == "places" else (36, 8)
        return toy_engine(Sarathi(), runner=ToyRunner(num_blocks=blocks), max_sequences=places)

    background = [token_request(f"b{i}", range(i, i + 20), 16, priority=5) for i in range(4)]
    urgent = token_request("urgent", range(50, 80), 5, priority=0)
    engine = busy_engine()
    for request in background:
        engine.add(request)
    for _ in range(10):
        early = engine.step()
    assert len(early) == 4  # everyone generates, one token a step
    engine.add(urgent)
    outputs = {output.id: output for output in engine.step()}
    assert [drawn.token for drawn in outputs["urgent"].drawn] == greedy(urgent.prompt, 1)
    assert engine.stats()["preemptions_total"] >= 1
    answers = run(engine)
    undisturbed = run(busy_engine(), *background)
    for request in background:
        final = answers[request.id]
        assert final.stats is not None
        assert final.stats.completion_tokens == 16
        assert undisturbed[request.id].tokens[-len(final.tokens) :] == final.tokens
    preempted = [a for a in answers.values() if a.stats is not None and a.stats.preemptions]
    assert preempted
    for answer in preempted:
        assert answer.stats is not None
        assert any(decision.subject == "preempt" for decision in answer.stats.decisions)
