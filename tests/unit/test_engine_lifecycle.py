"""How sequences end, what is refused, and what a failure may touch."""

from __future__ import annotations

import gc
import random

import numpy as np
import numpy.typing as npt
import pytest

from pentad.errors import (
    BackendFailed,
    Conflict,
    ContextLengthExceeded,
    InvalidRequest,
    Overloaded,
    ToolFailed,
    Unavailable,
)
from pentad.execution.batch import Drawn, RaggedBatch
from pentad.execution.scheduling import EngineLimits, SchedulerInput, StepPlan
from pentad.execution.sequence import Sequence
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, run, token_request, toy_engine
from pentad.testing.runners import ToyRunner, greedy, reference
from pentad.testing.schedulers import ArbitraryScheduler
from pentad.types import Decision, Sampling


class StopAfter:
    """A watcher that ends its sequence with the n-th token, or raises there."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.seen: list[int] = []
        self.count = count
        self.error = error

    def accept(self, drawn: Drawn) -> bool:
        self.seen.append(drawn.token)
        if len(self.seen) == self.count and self.error is not None:
            raise self.error
        return len(self.seen) == self.count


class Alternating:
    """A constraint: even tokens at even places, odd ones at odd; complete after `length`, then token 0."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.accepted: list[int] = []
        self.masks = 0

    def mask(self) -> npt.NDArray[np.uint32]:
        self.masks += 1
        word = 0x5555_5555 if len(self.accepted) % 2 == 0 else 0xAAAA_AAAA
        if len(self.accepted) >= self.length:
            return np.array([1, 0, 0, 0], dtype=np.uint32)
        return np.full(4, word, dtype=np.uint32)

    def accept(self, token: int) -> None:
        if len(self.accepted) < self.length and token % 2 != len(self.accepted) % 2:
            raise ValueError("not allowed")
        self.accepted.append(token)

    def finished(self) -> bool:
        return len(self.accepted) > self.length


# Ends


def test_a_sequence_ends_at_max_tokens_with_reason_length() -> None:
    answer = run(toy_engine(), token_request("a", range(5), 1))["a"]
    assert (answer.tokens, answer.finish) == (greedy(range(5), 1), "length")


def test_an_end_token_ends_and_is_handed_out() -> None:
    expected = greedy(range(5), 10)
    answer = run(toy_engine(), token_request("a", range(5), 10, end_tokens=frozenset({expected[3]})))["a"]
    assert (answer.tokens, answer.finish) == (expected[:4], "stop")


def test_ignore_eos_ignores_end_tokens_but_not_stop_tokens() -> None:
    expected = greedy(range(5), 10)
    sampling = Sampling(temperature=0, ignore_eos=True, stop_token_ids=(expected[6],))
    request = token_request("a", range(5), 10, sampling=sampling, end_tokens=frozenset({expected[3]}))
    answer = run(toy_engine(), request)["a"]
    assert (answer.tokens, answer.finish) == (expected[:7], "stop")


def test_before_min_tokens_no_end_token_is_drawn() -> None:
    sampling = Sampling(temperature=0, min_tokens=7, stop_token_ids=tuple(range(90)))
    request = token_request("a", range(5), 20, sampling=sampling)
    answer = run(toy_engine(), request)["a"]
    assert all(token >= 90 for token in answer.tokens[:7])
    assert (len(answer.tokens), answer.finish) == (8, "stop")
    assert answer.tokens == reference(request)


def test_a_watcher_sees_every_token_once_and_ends_its_sequence_at_once() -> None:
    watcher, bystander = StopAfter(4), StopAfter(99)
    answers = run(
        toy_engine(Sarathi()),
        token_request("a", range(5), 10, watcher=watcher),
        token_request("b", range(6), 10, watcher=bystander),
    )
    assert watcher.seen == answers["a"].tokens == greedy(range(5), 4)
    assert answers["a"].finish == "stop"
    assert bystander.seen == answers["b"].tokens == greedy(range(6), 10)


def test_logprobs_come_with_the_tokens() -> None:
    engine = toy_engine(Sarathi())
    engine.add(token_request("a", range(5), 1, sampling=Sampling(temperature=0, logprobs=3)))
    (output,) = engine.step()
    (drawn,) = output.drawn
    assert drawn.logprob is not None
    assert drawn.alternatives[0] == (drawn.token, drawn.logprob)
    assert len(drawn.alternatives) == 3


def test_the_record_holds_instants_on_the_engines_clock_and_decisions() -> None:
    now = 100.0

    def tick(batch: RaggedBatch) -> None:
        nonlocal now
        now += 1

    runner = ToyRunner(num_blocks=12, before_step=tick)
    engine = toy_engine(Sarathi(), runner=runner, clock=lambda: now, max_sequences=1)
    engine.add(token_request("first", range(10), 5))
    now += 0.5
    engine.add(token_request("urgent", range(20, 30), 2, priority=-1000))
    engine.step()
    now += 0.25
    answers = run(engine)
    urgent, first = answers["urgent"].stats, answers["first"].stats
    assert urgent is not None
    assert (urgent.arrived_s, urgent.scheduled_s, urgent.first_token_s) == (100.5, 100.5, 101.5)
    assert urgent.finished_s == 102.75
    assert first is not None
    assert (first.arrived_s, first.scheduled_s, first.first_token_s) == (100.0, 102.75, 103.75)
    assert first.finished_s == 107.75


def test_a_decision_that_concerns_a_sequence_is_in_its_record_once_however_often_repeated() -> None:
    runner = ToyRunner(num_blocks=10)
    engine = toy_engine(Sarathi(), runner=runner)
    answers = run(engine, token_request("big", range(25), 10), token_request("late", range(50, 80), 2))
    assert answers["late"].stats is not None
    (decision,) = answers["late"].stats.decisions
    assert (decision.subject, decision.chosen, decision.constraint) == ("admit", "late", "free_blocks")
    assert answers["big"].stats is not None
    assert answers["big"].stats.decisions == ()


# Constraints


@pytest.mark.parametrize("preempt_probability", [0.0, 0.6])
def test_a_constraint_masks_every_draw_and_is_never_replayed(preempt_probability: float) -> None:
    constraint = Alternating(9)
    scheduler = ArbitraryScheduler(3, preempt_probability=preempt_probability)
    engine = toy_engine(scheduler, max_sequences=2)
    other = token_request("b", range(20), 20)
    answers = run(engine, token_request("a", range(8), 50, constraint=constraint), other)
    assert answers["a"].finish == "stop"
    assert answers["a"].tokens == constraint.accepted
    assert len(constraint.accepted) == constraint.masks == 10
    assert [token % 2 for token in answers["a"].tokens[:9]] == [i % 2 for i in range(9)]
    assert answers["b"].tokens == reference(other)


def test_a_complete_format_ends_even_before_min_tokens() -> None:
    constraint = Alternating(3)
    sampling = Sampling(temperature=0, min_tokens=10)
    request = token_request(
        "a", range(8), 50, sampling=sampling, end_tokens=frozenset({0}), constraint=constraint
    )
    answer = run(toy_engine(), request)["a"]
    assert (len(answer.tokens), answer.tokens[-1], answer.finish) == (4, 0, "stop")


class Broken(Alternating):
    """A constraint that fails in one of its methods at the third token."""

    def __init__(self, where: str) -> None:
        super().__init__(99)
        self.where = where

    def mask(self) -> npt.NDArray[np.uint32]:
        if len(self.accepted) == 2 and self.where == "mask":
            raise RuntimeError("/secret/path")
        if len(self.accepted) == 2 and self.where == "nothing":
            return np.zeros(4, dtype=np.uint32)
        return super().mask()

    def accept(self, token: int) -> None:
        if len(self.accepted) == 2 and self.where == "accept":
            raise RuntimeError("/secret/path")
        super().accept(token)


@pytest.mark.parametrize("where", ["mask", "nothing", "accept", "watcher"])
def test_a_broken_constraint_or_watcher_ends_its_own_sequence_only(where: str) -> None:
    engine = toy_engine(Sarathi())
    if where == "watcher":
        broken = token_request("a", range(8), 20, watcher=StopAfter(3, RuntimeError("/secret/path")))
    else:
        broken = token_request("a", range(8), 20, constraint=Broken(where))
    answers = run(engine, token_request("b", range(9), 12), broken, token_request("c", range(7), 12))
    error = answers["a"].error
    assert isinstance(error, InvalidRequest if where == "nothing" else BackendFailed)
    assert "'a'" in str(error)
    assert "/secret/path" not in str(error)
    assert "\n" not in str(error)
    assert answers["b"].tokens == greedy(range(9), 12)
    assert answers["c"].tokens == greedy(range(7), 12)
    assert engine.stats()["requests_failed_total"] == 1
    assert engine.failures_in_a_row == 0


def test_an_error_meant_for_people_reaches_them_as_it_is() -> None:
    error = ToolFailed("the watcher's owner says why")
    answer = run(toy_engine(), token_request("a", range(8), 20, watcher=StopAfter(2, error)))["a"]
    assert answer.error is error


# Cancellation


def test_cancelled_sequences_are_gone_at_once_and_leave_no_block_behind() -> None:
    rng = random.Random(0)
    engine = toy_engine(ArbitraryScheduler(0, preempt_probability=0.2), max_sequences=4)
    survivor = token_request("keep", range(30), 150)
    engine.add(survivor)
    answer = Answer()

    def step() -> set[str]:
        outputs = engine.step()
        for output in outputs:
            if output.id == "keep":
                answer.take(output)
        return {output.id for output in outputs if output.finish == "cancelled"}

    for i in range(100):
        ids = [f"r{i}.{j}" for j in range(3)]
        engine.add(*(token_request(id, range(i % 40 + 2), 200) for id in ids))
        for _ in range(rng.randint(0, 4)):
            step()
        for id in ids:
            assert engine.cancel(id)
        assert step() == set(ids)
        assert (engine.stats()["running"], engine.stats()["waiting"]) in ((1, 0), (0, 1), (0, 0))
    while engine.has_work:
        step()
    assert answer.tokens == reference(survivor)
    assert engine.stats()["kv_blocks_held"] == 0
    assert engine.stats()["requests_cancelled_total"] == 300


def test_cancelling_what_is_not_there_does_nothing() -> None:
    engine = toy_engine()
    assert not engine.cancel("nobody")
    assert engine.step() == []
    assert not engine.has_work


# Refusals


def test_the_waiting_queue_is_bounded_and_tells_when_to_come_back() -> None:
    now = 0.0

    def tick(batch: RaggedBatch) -> None:
        nonlocal now
        now += 2.0

    engine = toy_engine(
        Sarathi(), runner=ToyRunner(before_step=tick), max_waiting=3, max_sequences=1, clock=lambda: now
    )
    for i in range(3):
        engine.add(token_request(f"r{i}", range(4), 1))
    with pytest.raises(Overloaded, match="3 requests are waiting, at most 3 can") as refused:
        engine.add(token_request("x", range(4), 1))
    assert refused.value.retry_after_s == 1.0  # nothing has ended yet
    assert "--max-waiting" in str(refused.value)
    engine.step()
    engine.step()
    for i in range(3, 5):
        engine.add(token_request(f"r{i}", range(4), 1))
    with pytest.raises(Overloaded) as refused:
        engine.add(token_request("x", range(4), 1))
    assert refused.value.retry_after_s == 3.0  # ends at 2 s and 4 s, so one a second, and three wait
    assert engine.stats()["requests_refused_total"] == 2
    assert set(run(engine)) == {"r2", "r3", "r4"}


def test_choices_are_queued_all_or_none() -> None:
    engine = toy_engine(max_waiting=4)
    engine.add(token_request("a", range(4)))
    with pytest.raises(Overloaded):
        engine.add(*(token_request(f"c{i}", range(4)) for i in range(4)))
    assert engine.stats()["waiting"] == 1
    engine.add(*(token_request(f"c{i}", range(4)) for i in range(3)))
    assert len(run(engine)) == 4


def test_what_can_never_be_served_is_refused_with_the_remedy() -> None:
    runner = ToyRunner(num_blocks=10, block_size=4, context_length=60)
    engine = toy_engine(runner=runner, max_waiting=4)
    assert engine.max_sequence_tokens == 40
    with pytest.raises(ContextLengthExceeded, match="61 tokens, the context of 'toy' is 60 tokens"):
        engine.add(token_request("a", range(31), 30))
    with pytest.raises(ContextLengthExceeded, match=r"41 tokens, the KV cache holds 40 tokens") as refused:
        engine.add(token_request("a", range(31), 10))
    assert "lower max_tokens to at most 9" in str(refused.value)
    assert f"--kv-bytes {11 * runner.block_bytes}" in str(refused.value)
    with pytest.raises(ContextLengthExceeded, match="shorten the prompt to less than 40 tokens"):
        engine.add(token_request("a", range(40), 1))
    with pytest.raises(InvalidRequest, match="the prompt is empty"):
        engine.add(token_request("a", []))
    for token in (-1, 97):
        with pytest.raises(InvalidRequest, match=f"prompt token {token} is unknown; token ids are 0 to 96"):
            engine.add(token_request("a", [1, token]))
    with pytest.raises(InvalidRequest, match="max_tokens is 0"):
        engine.add(token_request("a", [1], 0))
    with pytest.raises(InvalidRequest, match="lower n or raise --max-waiting"):
        engine.add(*(token_request(f"c{i}", [1]) for i in range(5)))
    with pytest.raises(Conflict, match="same id"):
        engine.add(token_request("a", [1]), token_request("a", [1]))
    assert not engine.has_work


def test_every_stated_remedy_works() -> None:
    engine = toy_engine(runner=ToyRunner(num_blocks=10, block_size=4, context_length=60))
    assert run(engine, token_request("a", range(31), 9))["a"].tokens == greedy(range(31), 9)
    assert run(engine, token_request("b", range(39), 1))["b"].tokens == greedy(range(39), 1)
    larger = toy_engine(runner=ToyRunner(num_blocks=11, block_size=4, context_length=60))
    assert run(larger, token_request("c", range(31), 10))["c"].tokens == greedy(range(31), 10)


def test_an_id_in_use_is_refused_and_free_again_after_the_end() -> None:
    engine = toy_engine()
    engine.add(token_request("a", range(4)))
    with pytest.raises(Conflict, match="'a' is in use"):
        engine.add(token_request("a", range(5)))
    run(engine)
    assert run(engine, token_request("a", range(5)))["a"].tokens == greedy(range(5), 8)


# Failures of others


@pytest.mark.parametrize(("raised", "kind"), [(ValueError, BackendFailed), (MemoryError, Unavailable)])
def test_a_failed_step_ends_its_sequences_and_the_engine_goes_on(
    raised: type[Exception], kind: type[Exception]
) -> None:
    failing = False

    def fail(batch: RaggedBatch) -> None:
        if failing:
            raise raised("0xdeadbeef")

    engine = toy_engine(Fcfs(), runner=ToyRunner(before_step=fail), max_sequences=2)
    for id in ("a", "b", "c"):
        engine.add(token_request(id, range(10), 5))
    engine.step()
    failing = True
    outputs = engine.step()
    assert {output.id for output in outputs} == {"a", "b"}
    for output in outputs:
        assert isinstance(output.error, kind)
        assert isinstance(output.error.__cause__, raised)
        assert ("ValueError" in str(output.error)) == (raised is ValueError)
        assert "0xdeadbeef" not in str(output.error)
        assert output.stats is not None
    assert engine.failures_in_a_row == 1
    assert engine.stats()["kv_blocks_held"] == 0
    failing = False
    assert run(engine)["c"].tokens == greedy(range(10), 5)
    assert engine.failures_in_a_row == 0
    assert run(engine, token_request("d", range(10), 5))["d"].tokens == greedy(range(10), 5)


def test_a_failed_copy_fails_the_step() -> None:
    class NoCopies(ToyRunner):
        def copy_block(self, source: int, target: int) -> None:
            raise RuntimeError

    engine = toy_engine(Sarathi(), runner=NoCopies())
    engine.add(*(token_request(f"c{i}", range(6), 9, choice=i) for i in range(2)))
    answers = run(engine)
    assert all(isinstance(answer.error, BackendFailed) for answer in answers.values())


def test_a_runner_that_draws_too_few_tokens_fails_the_step() -> None:
    class Lossy(ToyRunner):
        def step(self, batch, rows):  # type: ignore[no-untyped-def]
            return super().step(batch, rows)[1:]

    answers = run(toy_engine(Sarathi(), runner=Lossy()), token_request("a", range(6)))
    assert isinstance(answers["a"].error, BackendFailed)


class Planned:
    """A scheduler that returns one given kind of wrong plan."""

    name = "planned"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def plan(self, state: SchedulerInput) -> StepPlan:
        first, second = state.waiting[0], state.waiting[1]
        plans = {
            "too many tokens of one": StepPlan(work=((first, first.num_tokens + 1),)),
            "no tokens": StepPlan(work=((first, 0),)),
            "twice": StepPlan(work=((first, 1), (first, 1))),
            "over the token limit": StepPlan(work=((first, 9), (second, 8))),
            "over the sequence limit": StepPlan(work=((first, 1), (second, 1))),
            "preempts a waiting one": StepPlan(work=((first, 1),), preempt=(second,)),
        }
        return plans[self.kind]


@pytest.mark.parametrize(
    "kind",
    [
        "too many tokens of one",
        "no tokens",
        "twice",
        "over the token limit",
        "over the sequence limit",
        "preempts a waiting one",
    ],
)
def test_a_plan_that_breaks_its_promise_asserts_before_anything_happens(kind: str) -> None:
    engine = toy_engine(
        Planned(kind), max_batch_tokens=16, max_sequences=1 if kind == "over the sequence limit" else 4
    )
    engine.add(token_request("a", range(10)))
    engine.add(token_request("b", range(10)))
    with pytest.raises(AssertionError, match="planned"):
        engine.step()
    engine.check_integrity()
    assert engine.stats()["waiting"] == 2


def test_a_plan_for_more_blocks_than_there_are_asserts() -> None:
    class Greedy:
        name = "greedy"

        def plan(self, state: SchedulerInput) -> StepPlan:
            return StepPlan(work=tuple((seq, seq.num_tokens) for seq in state.waiting))

    engine = toy_engine(Greedy(), runner=ToyRunner(num_blocks=4))
    engine.add(token_request("a", range(8), 1))
    engine.add(token_request("b", range(10, 19), 1))
    with pytest.raises(AssertionError, match="3 KV blocks asked, 2 available"):
        engine.step()


def test_decisions_of_a_scheduler_are_bounded_per_sequence() -> None:
    class Talkative(Sarathi):
        def plan(self, state: SchedulerInput) -> StepPlan:
            plan = Sarathi.plan(self, state)
            said = tuple(
                Decision(layer="resource", policy="talkative", subject="a", chosen=str(len(plan.work) + i))
                for i in range(3)
            )
            return StepPlan(work=plan.work, preempt=plan.preempt, decisions=said)

    answer = run(toy_engine(Talkative()), token_request("a", range(4), 60))["a"]
    assert answer.stats is not None
    assert len(answer.stats.decisions) == 32


# Books


def test_statistics_add_up() -> None:
    now = 0.0

    def tick(batch: RaggedBatch) -> None:
        nonlocal now
        now += 0.5

    engine = toy_engine(Sarathi(), runner=ToyRunner(before_step=tick), clock=lambda: now)
    run(engine, token_request("a", range(10), 4), token_request("b", range(20), 4))
    stats = engine.stats()
    assert stats["prompt_tokens_total"] == 30
    assert stats["generation_tokens_total"] == 8
    assert stats["steps_total"] == engine.steps == 4
    assert stats["runner_seconds_total"] == stats["step_seconds_total"] == 2.0
    assert stats["overhead_seconds_total"] == stats["scheduler_seconds_total"] == 0.0
    assert stats["requests_finished_total"] == 2
    assert stats["kv_usage_fraction"] == 0.0
    assert all(isinstance(value, int | float) for value in stats.values())


def test_nothing_of_a_sequence_is_kept_after_its_end() -> None:
    engine = toy_engine(Sarathi(), runner=ToyRunner(num_blocks=30), max_waiting=1000)
    for i in range(200):
        engine.add(*(token_request(f"r{i}.{j}", range(i % 20 + 2), 5, choice=j) for j in range(3)))
        engine.step()
        engine.cancel(f"r{i}.{i % 3}")
    run(engine)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is Sequence]


def test_closing_cancels_everything_and_closes_the_runner() -> None:
    runner = ToyRunner()
    engine = toy_engine(Sarathi(), runner=runner)
    engine.add(token_request("a", range(10), 4))
    engine.step()
    engine.close()
    assert runner.closed
    assert engine.stats()["kv_blocks_held"] == 0


def test_limits_are_checked() -> None:
    with pytest.raises(InvalidRequest, match="max_sequences is 0"):
        EngineLimits(max_sequences=0)
