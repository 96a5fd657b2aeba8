"""The plan of an ordinary step is found without the books of a step, and is the one that these would give."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from pentad.execution.pace import Pace
from pentad.execution.scheduling import EngineLimits, SchedulerInput
from pentad.resource.scheduling.fastserve import FastServe
from pentad.resource.scheduling.sarathi import Sarathi
from pentad.types import RunContext

SIZE = 16


@dataclass(frozen=True, kw_only=True)
class View:
    id: str
    arrived_s: float
    num_tokens: int
    num_computed: int = 0
    num_cached: int = 0
    priority: int = 0
    chunk_s: float = 0.0
    chunk_ended_s: float = 0.0
    num_generated: int = 0
    max_tokens: int = 100
    tenant: str = "default"
    turn_hints: None = None
    num_draft: int = 0
    context: RunContext = field(default_factory=RunContext)

    @property
    def num_slots(self) -> int:
        return self.num_computed

    @property
    def num_blocks(self) -> int:
        return -(-self.num_computed // SIZE)

    @property
    def num_private_blocks(self) -> int:
        return self.num_blocks

    @property
    def fresh_tokens(self) -> int:
        return self.num_tokens


@st.composite
def states(draw: st.DrawFn) -> SchedulerInput:
    """States with some that decode, at most two prompts in progress, and some that wait."""
    instant = st.floats(0, 10)
    running = [
        View(id=f"d{i}", arrived_s=draw(instant), num_tokens=tokens + 1, num_computed=tokens)
        for i, tokens in enumerate(draw(st.lists(st.integers(1, 900), max_size=5)))
    ]
    running += [
        View(
            id=f"p{i}",
            arrived_s=draw(instant),
            num_tokens=computed + todo,
            num_computed=computed,
            chunk_s=draw(st.floats(0, 0.5)),
            chunk_ended_s=10 - draw(st.floats(0, 1)),
        )
        for i, (computed, todo) in enumerate(
            draw(st.lists(st.tuples(st.integers(1, 900), st.integers(2, 900)), max_size=2))
        )
    ]
    waiting = [
        View(id=f"w{i}", arrived_s=draw(instant), num_tokens=tokens, priority=draw(st.integers(0, 1)))
        for i, tokens in enumerate(draw(st.lists(st.integers(1, 900), max_size=2)))
    ]
    if not running and not waiting:
        waiting = [View(id="w", arrived_s=0.0, num_tokens=5)]
    measured = Pace(least_s=0.01, prompt_token_s=draw(st.sampled_from([1e-5, 1e-3])))
    return SchedulerInput(
        now_s=10.0,
        waiting=waiting,
        running=running,
        free_blocks=draw(st.integers(0, 120)),
        block_size=SIZE,
        limits=EngineLimits(max_batch_tokens=128, max_sequences=draw(st.integers(max(1, len(running)), 8))),
        pace=draw(st.sampled_from([Pace(), measured])),
    )


@given(state=states(), slowdown=st.sampled_from([None, 3.0]))
@settings(max_examples=150, deadline=None)
def test_the_plan_of_an_ordinary_step_is_that_of_the_books(
    state: SchedulerInput, slowdown: float | None
) -> None:
    for scheduler in (Sarathi(short_slowdown=slowdown), FastServe()):
        ordinary = scheduler._by_arrival and scheduler._ordinary(state, 128)
        if ordinary:
            assert ordinary == scheduler._plan(state, 128, scheduler._order(state), None)


def test_a_prompt_beside_decodes_is_ordinary_and_two_are_not() -> None:
    decodes = [
        View(id=f"d{i}", arrived_s=1.0 - i / 10, num_tokens=33 + i, num_computed=32 + i) for i in range(3)
    ]
    prompt = View(id="p", arrived_s=2.0, num_tokens=400, num_computed=100)
    limits = EngineLimits(max_batch_tokens=128, max_sequences=8)
    state = SchedulerInput(
        now_s=3.0, waiting=(), running=(*decodes, prompt), free_blocks=50, block_size=SIZE, limits=limits
    )
    plan = Sarathi()._ordinary(state, 128)
    assert plan is not None
    # In the order of arrival, one token each, and what is left of the step for the prompt.
    assert [(view.id, count) for view, count in plan.work] == [("d2", 1), ("d1", 1), ("d0", 1), ("p", 125)]
    other = View(id="q", arrived_s=2.5, num_tokens=400, num_computed=100)
    two = SchedulerInput(
        now_s=3.0, waiting=(), running=(prompt, other), free_blocks=50, block_size=SIZE, limits=limits
    )
    assert Sarathi()._ordinary(two, 128) is None
