"""Schedulers against a model of the engine: whatever arrives, plans can be carried out and end."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pentad.execution.hints import TurnHints
from pentad.execution.pace import Pace
from pentad.execution.scheduling import BatchScheduler, EngineLimits, SchedulerInput, StepPlan
from pentad.execution.served import ServedTokens
from pentad.resource.scheduling.classes import Classes
from pentad.resource.scheduling.clipper import Clipper
from pentad.resource.scheduling.clockwork import Clockwork
from pentad.resource.scheduling.fastserve import FastServe
from pentad.resource.scheduling.fcfs import Fcfs
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.types import RunContext

BLOCK = 4


@dataclasses.dataclass(kw_only=True)
class Seq:
    """A sequence of the toy engine; blocks are counted, not named."""

    id: str
    arrived_s: float
    prompt: int
    output: int
    priority: int = 0
    num_cached: int = 0
    num_draft: int = 0
    num_generated: int = 0
    chunk_s: float = 0.0
    chunk_ended_s: float = 0.0
    num_computed: int = 0
    num_blocks: int = 0
    shared: int = 0
    """Blocks that someone else would keep alive."""
    tenant: str = "default"
    context: RunContext = dataclasses.field(default_factory=RunContext)
    turn_hints: TurnHints | None = None

    @property
    def num_slots(self) -> int:
        return self.num_computed

    @property
    def max_tokens(self) -> int:
        return self.output

    @property
    def fresh_tokens(self) -> int:
        return self.prompt

    @property
    def num_tokens(self) -> int:
        return self.prompt + self.num_generated

    @property
    def num_private_blocks(self) -> int:
        return max(0, self.num_blocks - self.shared)

    @property
    def most_blocks(self) -> int:
        return -(-(self.prompt + self.output) // BLOCK)


schedulers = st.one_of(
    st.builds(Fcfs, prefill_first=st.booleans()),
    st.builds(Clockwork),
    st.builds(Classes, slowdown=st.floats(1.01, 3), aging_s=st.none() | st.floats(0.5, 50)),
    st.builds(Clipper, slo_s=st.floats(0.1, 3), first_tokens=st.integers(1, 40)),
    st.builds(
        FastServe,
        quantum_steps=st.floats(0.5, 40),
        queues=st.integers(2, 9),
        guard=st.none() | st.floats(0.5, 50),
        token_budget=st.none() | st.integers(1, 40),
    ),
    st.builds(
        Sarathi,
        token_budget=st.none() | st.integers(1, 40),
        aging_s=st.none() | st.floats(0.5, 50),
        headroom_blocks=st.integers(0, 2),
        short_slowdown=st.none() | st.floats(1.5, 10),
        tenant_slowdown=st.none() | st.floats(1.1, 10),
        patience_s=st.none() | st.floats(0.5, 50),
    ),
)
tenants = st.sampled_from(["ann", "bob", "eve"])
hinted = st.none() | st.builds(
    TurnHints,
    slack_s=st.none() | st.floats(0, 60),
    remaining_steps=st.none() | st.integers(0, 9),
    inter_token_s=st.none() | st.floats(0.001, 1),
)
arrivals = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(1, 40), st.integers(1, 12), st.integers(-1, 2), tenants, hinted
    ),
    min_size=1,
    max_size=12,
)


class ToyEngine:
    """Carries plans out and checks each of them; no block is shared, so its books are exact."""

    def __init__(self, scheduler: BatchScheduler, limits: EngineLimits, blocks: int) -> None:
        self.scheduler = scheduler
        self.limits = limits
        self.blocks = blocks
        self.waiting: list[Seq] = []
        self.running: list[Seq] = []
        self.now = 0.0
        self.pace = Pace()
        self.preemptions = 0
        self.served = ServedTokens()

    @property
    def free(self) -> int:
        return self.blocks - sum(seq.num_blocks for seq in self.running)

    def add(self, seq: Seq) -> None:
        self.waiting.append(seq)
        self.served.enter(seq.tenant)

    def step(self) -> list[Seq]:
        state = SchedulerInput(
            now_s=self.now,
            waiting=tuple(self.waiting),
            running=tuple(self.running),
            free_blocks=self.free,
            block_size=BLOCK,
            limits=self.limits,
            pace=self.pace,
            served=self.served.shown(),
        )
        plan = self.scheduler.plan(state)
        assert self.scheduler.plan(state) == plan, "the same state gave two plans"
        self._check(plan)
        for seq in plan.preempt:
            assert isinstance(seq, Seq)
            self.preemptions += 1
            self.running.remove(seq)
            self.waiting.insert(0, seq)
            seq.num_computed = seq.num_blocks = 0
        finished = []
        for seq, tokens in plan.work:
            assert isinstance(seq, Seq)
            if seq in self.waiting:
                self.waiting.remove(seq)
                self.running.append(seq)
            seq.num_computed += tokens
            seq.chunk_s, seq.chunk_ended_s = 1.0, self.now + 1.0
            seq.num_blocks = -(-seq.num_computed // BLOCK)
            assert self.free >= 0, "the plan took more blocks than there are"
            if seq.num_computed == seq.num_tokens:
                seq.num_generated += 1
                if seq.num_generated == seq.output:
                    finished.append(seq)
        self.served.add(plan.work)
        for seq in finished:
            self.served.leave(seq.tenant)
            self.running.remove(seq)
            seq.num_blocks = 0
        if self.running or self.waiting:
            assert plan.work, "something could run and nothing did"
        self.now += 1.0
        return finished

    def _check(self, plan: StepPlan) -> None:
        ids = [seq.id for seq, _ in plan.work]
        gone = {seq.id for seq in plan.preempt}
        assert len(set(ids)) == len(ids)
        assert gone.isdisjoint(ids), "preempted work was planned"
        assert gone <= {seq.id for seq in self.running}
        for seq, tokens in plan.work:
            assert 1 <= tokens <= seq.num_tokens - seq.num_computed
        assert sum(tokens for _, tokens in plan.work) <= self.limits.max_batch_tokens
        new = sum(seq in self.waiting for seq, _ in plan.work)
        assert len(self.running) - len(gone) + new <= self.limits.max_sequences


@given(
    scheduler=schedulers,
    requests=arrivals,
    budget=st.integers(1, 48),
    slots=st.integers(1, 6),
    spare=st.integers(0, 12),
)
@settings(max_examples=300, deadline=None)
def test_every_request_finishes_and_no_plan_breaks_a_limit(
    scheduler: BatchScheduler,
    requests: list[tuple[int, int, int, int, str, TurnHints | None]],
    budget: int,
    slots: int,
    spare: int,
) -> None:
    seqs = sorted(
        (
            Seq(
                id=f"s{i}",
                arrived_s=float(at),
                prompt=prompt,
                output=output,
                priority=priority,
                tenant=tenant,
                turn_hints=hints,
            )
            for i, (at, prompt, output, priority, tenant, hints) in enumerate(requests)
        ),
        key=lambda seq: seq.arrived_s,
    )
    blocks = max(seq.most_blocks for seq in seqs) + spare
    engine = ToyEngine(scheduler, EngineLimits(max_batch_tokens=budget, max_sequences=slots), blocks)
    unfinished = len(seqs)
    work = sum(seq.prompt + seq.output for seq in seqs)
    for _ in range(200 + 30 * work):
        while seqs and (seqs[0].arrived_s <= engine.now or not (engine.running or engine.waiting)):
            seq = seqs.pop(0)
            engine.now = max(engine.now, seq.arrived_s)
            engine.add(seq)
        unfinished -= len(engine.step())
        if not unfinished:
            return
    raise AssertionError(f"{unfinished} requests did not finish")


views = st.builds(
    Seq,
    id=st.uuids().map(str),
    arrived_s=st.floats(0, 100),
    prompt=st.integers(1, 60),
    output=st.integers(1, 20),
    priority=st.integers(-2, 2),
    tenant=tenants,
    turn_hints=hinted,
)


@st.composite
def states(draw: st.DrawFn) -> SchedulerInput:
    """Any state, with prefix hits and shared blocks, also such as no engine would reach."""
    running = []
    for seq in draw(st.lists(views, max_size=6)):
        seq.num_generated = draw(st.integers(0, 5))
        seq.num_computed = draw(st.integers(1, max(1, seq.num_tokens - 1)))
        seq.num_computed = min(seq.num_computed, seq.num_tokens - 1) or 1
        seq.num_blocks = -(-seq.num_computed // BLOCK)
        seq.shared = draw(st.integers(0, seq.num_blocks))
        running.append(seq)
    waiting = draw(st.lists(views, max_size=6))
    for seq in waiting:
        seq.num_cached = draw(st.integers(0, seq.num_tokens - 1))
    names = {seq.tenant for seq in (*running, *waiting)}
    return SchedulerInput(
        now_s=100.0,
        waiting=tuple(sorted(waiting, key=lambda seq: seq.arrived_s)),
        running=tuple(running),
        free_blocks=draw(st.integers(0, 40)),
        block_size=BLOCK,
        limits=EngineLimits(max_batch_tokens=draw(st.integers(1, 64)), max_sequences=draw(st.integers(6, 9))),
        pace=draw(st.sampled_from((Pace(), Pace(least_s=0.02, prompt_token_s=0.001)))),
        served=dict.fromkeys(names, 5) | {min(names): 0} if len(names) > 1 else {},
    )


@pytest.mark.thorough
@given(scheduler=schedulers, state=states())
@settings(max_examples=500, deadline=None)
def test_a_plan_for_any_state_stays_within_tokens_slots_and_the_blocks_that_surely_exist(
    scheduler: BatchScheduler, state: SchedulerInput
) -> None:
    plan = scheduler.plan(state)
    assert sum(tokens for _, tokens in plan.work) <= state.limits.max_batch_tokens
    running = {seq.id for seq in state.running}
    gone = {seq.id for seq in plan.preempt}
    assert gone <= running
    assert gone.isdisjoint(seq.id for seq, _ in plan.work)
    new = sum(seq.id not in running for seq, _ in plan.work)
    assert len(running) - len(gone) + new <= state.limits.max_sequences
    taken = 0
    for seq, tokens in plan.work:
        done = seq.num_computed if seq.id in running else seq.num_cached
        assert 1 <= tokens <= max(1, seq.num_tokens - done)
        taken += max(0, -(-(done + tokens) // BLOCK) - seq.num_blocks)
    assert taken <= state.free_blocks + sum(seq.num_private_blocks for seq in plan.preempt)


@pytest.mark.row("ag-priority", "mechanism", claims=(2,))
@pytest.mark.parametrize("kind", [Sarathi, Classes])
@pytest.mark.parametrize("aging_s", [5.0, 20.0])
def test_a_steady_stream_of_urgent_requests_delays_another_by_at_most_the_aging_time(
    aging_s: float, kind: type[Sarathi]
) -> None:
    engine = ToyEngine(kind(aging_s=aging_s), EngineLimits(max_batch_tokens=8, max_sequences=1), 16)
    engine.add(Seq(id="patient", arrived_s=0.0, prompt=4, output=2, priority=1))
    for i in range(200):
        engine.add(Seq(id=f"u{i}", arrived_s=engine.now, prompt=4, output=2, priority=0))
        if any(seq.id == "patient" for seq in engine.step()):
            # Each urgent request takes two steps, so those that may overtake queue up twice as long.
            assert engine.now <= 2 * aging_s + 8
            return
    raise AssertionError("the patient request starved")


def test_strict_priorities_starve_which_is_why_they_are_not_the_default() -> None:
    engine = ToyEngine(Sarathi(aging_s=None), EngineLimits(max_batch_tokens=8, max_sequences=1), 16)
    engine.add(Seq(id="patient", arrived_s=0.0, prompt=4, output=2, priority=1))
    for i in range(200):
        engine.add(Seq(id=f"u{i}", arrived_s=engine.now, prompt=4, output=2, priority=0))
        assert all(seq.id != "patient" for seq in engine.step())
    assert Sarathi().aging_s is not None


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("budget", [1, 8])
def test_a_steady_stream_of_one_tenant_starves_no_other_whatever_its_priority(
    slots: int, budget: int
) -> None:
    engine = ToyEngine(Sarathi(), EngineLimits(max_batch_tokens=budget, max_sequences=slots), 16)
    for i in range(200):
        engine.add(Seq(id=f"u{i}", arrived_s=engine.now, prompt=4, output=2, priority=-(2**31), tenant="ann"))
        if i == 20:
            engine.add(Seq(id="patient", arrived_s=engine.now, prompt=4, output=2, tenant="bob"))
        if any(seq.id == "patient" for seq in engine.step()):
            assert engine.now <= 21 + 2 * (4 + 2) * (8 // budget) + 8
            return
    raise AssertionError("the patient request starved")


@pytest.mark.parametrize("guard", [4.0, None])
def test_the_guard_of_fastserve_lets_a_long_answer_end_in_a_stream_of_short_ones(guard: float | None) -> None:
    limits = EngineLimits(max_batch_tokens=8, max_sequences=1)
    engine = ToyEngine(FastServe(quantum_steps=2, guard=guard), limits, 16)
    engine.pace = Pace(least_s=1.0, prompt_token_s=0.1)
    engine.add(Seq(id="long", arrived_s=0.0, prompt=4, output=12))
    for i in range(400):
        if all(seq.id == "long" for seq in engine.waiting):
            engine.add(Seq(id=f"s{i}", arrived_s=engine.now, prompt=4, output=2))
        if any(seq.id == "long" for seq in engine.step()):
            assert guard is not None, "nothing starves, so the guard is of no use"
            return
    assert guard is None, "the long answer starved"
