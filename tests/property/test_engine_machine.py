"""Any history of adding, stepping, preempting, cancelling and failing keeps books and tokens right."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pentad.errors import BackendFailed
from pentad.execution.batch import RaggedBatch
from pentad.execution.kv.pool import BlockPool
from pentad.execution.request import TokenRequest
from pentad.execution.scheduling import BatchScheduler, SchedulerInput, StepPlan
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.testing.engines import Answer, run, token_request, toy_engine
from pentad.testing.runners import ToyRunner, reference
from pentad.testing.schedulers import ArbitraryScheduler
from pentad.types import Hints, RunContext, Sampling

SAMPLINGS = st.sampled_from(
    [
        Sampling(temperature=0),
        Sampling(temperature=1.0),
        Sampling(temperature=0.8, top_k=20, frequency_penalty=0.7),
        Sampling(temperature=0, repetition_penalty=1.5, min_tokens=3, stop_token_ids=(1, 2, 3, 4, 5)),
    ]
)
PROMPTS = st.tuples(
    st.sampled_from([(), tuple(range(4)), tuple(range(12)), tuple(range(21))]),
    st.lists(st.integers(0, 2), min_size=1, max_size=6),
).map(lambda parts: (*parts[0], *parts[1]))
"""Few beginnings and few tokens, so that prefixes are often shared."""

CONTEXTS = st.builds(
    RunContext,
    run_id=st.sampled_from([None, "r", "s"]),
    parent=st.sampled_from([None, "r0.0", "r1.0"]),
    hints=st.builds(
        Hints,
        next=st.sampled_from([None, "tool", "model", "end"]),
        tool_s=st.sampled_from([None, 0.0, 0.05, 30.0]),
        fan_out=st.sampled_from([None, 1, 3]),
    ),
)


class Switched:
    """The scheduler of the moment."""

    name = "switched"

    def __init__(self, inner: BatchScheduler) -> None:
        self.inner = inner

    def plan(self, state: SchedulerInput) -> StepPlan:
        return self.inner.plan(state)


class EngineMachine(RuleBasedStateMachine):
    """Drives an engine that checks its books after each step, against contiguous recomputation."""

    @initialize(
        seed=st.integers(0, 999),
        num_blocks=st.integers(12, 30),
        block_size=st.sampled_from([1, 3, 4]),
        max_sequences=st.integers(1, 5),
        max_batch_tokens=st.integers(1, 24),
        preempt=st.sampled_from([0.0, 0.2, 0.6]),
        prefix_cache=st.booleans(),
    )
    def start(
        self,
        seed: int,
        num_blocks: int,
        block_size: int,
        max_sequences: int,
        max_batch_tokens: int,
        preempt: float,
        prefix_cache: bool,
    ) -> None:
        self.begin(
            seed,
            num_blocks=num_blocks,
            block_size=block_size,
            preempt=preempt,
            max_sequences=max_sequences,
            max_batch_tokens=max_batch_tokens,
            prefix_cache=prefix_cache,
        )

    def begin(self, seed: int, *, num_blocks: int, block_size: int, preempt: float, **options: Any) -> None:
        """An idle engine on the toy model.

        Args:
            options: of `toy_engine`.
        """
        self.failing = False
        self.scheduler = Switched(ArbitraryScheduler(seed, preempt_probability=preempt))
        self.runner = ToyRunner(num_blocks=num_blocks, block_size=block_size, before_step=self._before_step)
        # Every look at the clock takes a millisecond: what is decided by time is the same in each run.
        clock = map((0.001).__mul__, itertools.count()).__next__
        self.engine = toy_engine(self.scheduler, runner=self.runner, clock=clock, **options)
        self.requests: dict[str, TokenRequest] = {}
        self.answers: dict[str, Answer] = {}
        self.live: set[str] = set()

    def _before_step(self, batch: RaggedBatch) -> None:
        if self.failing:
            raise RuntimeError("asked to fail")

    @rule(
        prompt=PROMPTS,
        max_tokens=st.integers(1, 8),
        sampling=SAMPLINGS,
        choices=st.sampled_from([1, 1, 2, 4]),
        tenant=st.sampled_from(["a", "b"]),
        seed=st.integers(0, 5),
        context=CONTEXTS,
    )
    def add(
        self,
        prompt: tuple[int, ...],
        max_tokens: int,
        sampling: Sampling,
        choices: int,
        tenant: str,
        seed: int,
        context: RunContext,
    ) -> None:
        room = self.engine.max_sequence_tokens - len(prompt)
        if room < 1:
            return
        group = [
            token_request(
                f"r{len(self.requests)}.{choice}",
                prompt,
                min(max_tokens, room),
                sampling=sampling,
                choice=choice,
                tenant=tenant,
                seed=seed,
                context=context,
            )
            for choice in range(choices)
        ]
        self.engine.add(*group)
        for request in group:
            self.requests[request.id] = request
            self.answers[request.id] = Answer()
            self.live.add(request.id)

    @rule(steps=st.integers(1, 5))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self._take()

    def _take(self) -> None:
        for output in self.engine.step():
            self.answers[output.id].take(output)
            if output.stats is not None:
                self.live.discard(output.id)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.live)))
        assert self.engine.cancel(id)
        self._take()
        assert self.answers[id].finish == "cancelled"

    @precondition(lambda self: self.live)
    @rule()
    def fail_a_step(self) -> None:
        self.failing = True
        self._take()
        self.failing = False

    @invariant()
    def books_are_right(self) -> None:
        if hasattr(self, "engine"):
            self.engine.check_integrity()

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        self.scheduler.inner = Sarathi()  # arbitrary plans may preempt for ever
        for id, rest in run(self.engine).items():
            answer = self.answers[id]
            answer.tokens += rest.tokens
            answer.finish, answer.error, answer.stats = rest.finish, rest.error, rest.stats
        assert self.engine.stats()["kv_blocks_held"] == 0
        for id, answer in self.answers.items():
            expected = reference(self.requests[id])
            assert answer.stats is not None
            if answer.finish in ("stop", "length"):
                assert answer.tokens == expected, self.requests[id]
            else:
                assert answer.finish == "cancelled" or isinstance(answer.error, BackendFailed)
                assert answer.tokens == expected[: len(answer.tokens)]


EngineMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestEngineMachine = EngineMachine.TestCase


class PoolMachine(RuleBasedStateMachine):
    """Drives a BlockPool as prefix-holding owners would, against a plain count of holders."""

    @initialize(num_blocks=st.integers(1, 12))
    def start(self, num_blocks: int) -> None:
        self.pool = BlockPool(num_blocks)
        self.chains: list[list[int]] = []
        self.names: list[tuple[int, ...]] = []

    @rule(length=st.integers(1, 5), name=st.integers(0, 3))
    def take(self, length: int, name: int) -> None:
        names = tuple(name * 10 + i for i in range(length))
        known = []
        for i in range(length):
            block = self.pool.find(_key(names[: i + 1]))
            if block is None:
                break
            known.append(block)
        for block in known:
            self.pool.share(block)
        if length - len(known) > self.pool.available:
            self.pool.release(reversed(known))
            return
        chain = known + self.pool.allocate(length - len(known))
        for i in range(len(known), length):
            parent = _key(names[:i]) if i else None
            assert self.pool.register(chain[i], _key(names[: i + 1]), parent) == chain[i]
        self.chains.append(chain)

    @precondition(lambda self: self.chains)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        chain = self.chains.pop(data.draw(st.integers(0, len(self.chains) - 1)))
        self.pool.release(reversed(chain))

    @invariant()
    def books_are_right(self) -> None:
        if hasattr(self, "pool"):
            holders: dict[int, int] = {}
            for chain in self.chains:
                for block in chain:
                    holders[block] = holders.get(block, 0) + 1
            self.pool.check_integrity(holders)
            assert self.pool.held == len(holders)
            assert self.pool.available == self.pool.num_blocks - len(holders)


def _key(names: tuple[int, ...]) -> bytes:
    return np.array(names, dtype=np.int32).tobytes()


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPoolMachine = PoolMachine.TestCase
