"""Context builders: what every registered one keeps to, how seldom `window` cuts, and what a run records."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_support import harness, run, spec
from pentad import registry
from pentad.agent.context_builders.base import Built, ContextBuilder, ContextInput, check_window
from pentad.agent.explain import explain
from pentad.agent.memory.window import Overflow, Window
from pentad.agent.model_events import Compacted
from pentad.agent.planning.base import MessageGroup, ModelCallDraft
from pentad.agent.spec import MemoryChoice
from pentad.agent.spec_check import check_strategies
from pentad.agent.state import RunState
from pentad.choice import Choice, build
from pentad.errors import ContextLengthExceeded, Incompatible, InvalidRequest
from pentad.types import Message

GOAL = "the goal itself"
NAMES = registry.known("context")


def count(messages: Sequence[Message]) -> int:
    return sum(len(m.content.split()) for m in messages)


async def summarise(text: str) -> str:
    return f"summary of {len(text)} characters"


def turns(sizes: Sequence[int]) -> tuple[MessageGroup, ...]:
    """A loose group per size, a user message and its answer, then the pinned goal."""
    loose = [
        MessageGroup(
            messages=(
                Message(role="user", content=f"turn{place} " + "w " * size),
                Message(role="assistant", content=f"reply{place}"),
            )
        )
        for place, size in enumerate(sizes)
    ]
    return (*loose, MessageGroup(messages=(Message(role="user", content=GOAL),), pinned=True, noted=True))


def wanted(sizes: Sequence[int], *, limit: int = 100, dropped: int = 0, **window: Any) -> ContextInput:
    return ContextInput(
        draft=ModelCallDraft(purpose="act", system="be brief", turns=turns(sizes), max_tokens=8),
        state=RunState(run_id="r", spec=spec(), goal=GOAL, tenant="t", dropped_turns=dropped),
        window=Window(**window),
        limit_tokens=limit,
        count=count,
        summarise=summarise,
    )


def said(built: Built) -> list[str]:
    return [m.content.split()[0] for m in built.messages]


@pytest.mark.parametrize("name", NAMES)
class TestEveryContextBuilder:
    def builder(self, name: str) -> ContextBuilder:
        return build("context", Choice(name=name))  # type: ignore[no-any-return]

    def test_what_fits_stays_as_it_is(self, name: str) -> None:
        built = run(self.builder(name).build(wanted([3, 4, 5])))
        assert built.compacted is None
        assert built.decisions(name, 100, 0.0) == ()
        assert said(built) == ["be", "turn0", "reply0", "turn1", "reply1", "turn2", "reply2", "the"]

    @settings(max_examples=40)
    @given(st.lists(st.integers(0, 60), max_size=12), st.integers(8, 150), st.integers(0, 3))
    def test_fits_keeps_what_is_pinned_and_the_newest_and_says_what_went(
        self, name: str, sizes: list[int], limit: int, dropped: int
    ) -> None:
        before = wanted(sizes, limit=limit, dropped=min(dropped, len(sizes)))
        built = run(self.builder(name).build(before))
        assert built.tokens == count(built.messages) <= limit
        words = said(built)
        assert words[0] == "be"
        assert built.messages[-1].content.endswith(GOAL)
        shown = [int(word.removeprefix("turn")) for word in words if word.startswith("turn")]
        assert shown == list(range(len(sizes) - len(shown), len(sizes))), "the newest, in order, no gaps"
        gone = len(sizes) - len(shown)
        if built.compacted is None:
            assert gone == before.state.dropped_turns, "nothing goes unsaid"
        else:
            assert built.compacted.dropped_turns == gone > before.state.dropped_turns
            assert built.compacted.before_tokens > built.compacted.after_tokens == built.tokens
            (decision,) = built.decisions(name, limit, 1.0)
            assert (decision.policy, decision.constraint) == (name, f"{limit} prompt tokens")
        assert run(self.builder(name).build(before)) == built, "equal input, equal prompt"

    def test_what_can_not_fit_is_refused_with_a_remedy(self, name: str) -> None:
        with pytest.raises(ContextLengthExceeded, match="nothing more can be left out") as caught:
            run(self.builder(name).build(wanted([5], limit=4)))
        assert caught.value.hint
        with pytest.raises(ContextLengthExceeded, match="overflow is 'refuse'"):
            run(self.builder(name).build(wanted([90, 90], overflow="refuse")))

    def test_no_more_turns_stay_than_the_window_has(self, name: str) -> None:
        built = run(self.builder(name).build(wanted([1] * 9, max_turns=4)))
        assert 1 <= sum(word.startswith("turn") for word in said(built)) <= 4
        assert built.compacted is not None
        assert built.compacted.reason == "turns"

    @pytest.mark.parametrize("overflow", ["trim", "summarise", "refuse"])
    def test_a_window_that_it_cannot_keep_is_refused_when_the_agent_is_checked(
        self, name: str, overflow: Overflow
    ) -> None:
        agent = spec(context=Choice(name=name), memory=MemoryChoice(window=Window(overflow=overflow)))
        builder = self.builder(name)
        if overflow in builder.overflows:
            check_strategies(agent)
            return
        with pytest.raises(Incompatible, match="cannot summarise, as memory") as caught:
            check_strategies(agent)
        assert "set memory.window.overflow to one of" in str(caught.value)
        for each in builder.overflows:
            assert each in str(caught.value)
            check_window(builder, Window(overflow=each))

    def test_says_that_something_may_be_lost(self, name: str) -> None:
        assert self.builder(name).exactness == "lossy"


@dataclass
class Conversation:
    """A conversation of equal turns as a run has it: each step adds one, what was left out stays out."""

    builder: ContextBuilder
    sizes: list[int]
    dropped: int = 0
    cuts: int = 0

    def step(self) -> None:
        self.sizes.append(8)
        built = run(self.builder.build(wanted(self.sizes, dropped=self.dropped)))
        if built.compacted is not None:
            self.dropped, self.cuts = built.compacted.dropped_turns, self.cuts + 1


def cuts_of(choice: Choice, steps: int = 60) -> int:
    talk = Conversation(build("context", choice), [])
    for _ in range(steps):
        talk.step()
    return talk.cuts


def test_window_cuts_seldom_where_compact_cuts_each_step() -> None:
    assert cuts_of(Choice(name="compact")) > 45
    assert cuts_of(Choice(name="window")) < 15
    assert cuts_of(Choice(name="window", options={"keep_fraction": 1.0})) > 45


def test_window_cuts_turns_to_the_fraction_too() -> None:
    built = run(build("context", Choice(name="window")).build(wanted([1] * 11, max_turns=10)))
    assert sum(word.startswith("turn") for word in said(built)) == 6


def test_window_keeps_what_is_pinned_even_where_that_is_more_than_its_fraction() -> None:
    long = MessageGroup(messages=(Message(role="user", content="pinned " + "w " * 79),), pinned=True)
    before = wanted([30, 3])
    before = replace(before, draft=replace(before.draft, turns=(long, *before.draft.turns)))
    built = run(build("context", Choice(name="window")).build(before))
    assert said(built) == ["be", "pinned", "turn1", "reply1", "the"]


def test_a_summary_stands_for_what_compact_left_out() -> None:
    built = run(
        build("context", Choice(name="compact")).build(wanted([90] * 3, limit=250, overflow="summarise"))
    )
    assert built.compacted is not None
    assert built.compacted.summary.startswith("summary of ")
    assert f"Earlier, in short: {built.compacted.summary}" in built.messages[-1].content


@pytest.mark.parametrize("fraction", [0, -1, 1.5])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InvalidRequest, match=r"keep_fraction is .*above 0 and at most 1"):
        build("context", Choice(name="window", options={"keep_fraction": fraction}))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_records_what_its_builder_left_out(tmp_path: pathlib.Path, name: str) -> None:
    history = [
        Message(role=role, content=f"{place} " + "word " * 20)  # type: ignore[arg-type]
        for place in range(12)
        for role in ("user", "assistant")
    ]

    async def scenario() -> None:
        async with harness(tmp_path, [["done"]], context_length=200) as h:
            state = await h.work(spec(context=Choice(name=name), max_tokens=8), GOAL, history=history)
            assert state.status == "answered"
            (event,) = [r.event for r in h.records(state.run_id) if isinstance(r.event, Compacted)]
            assert event.dropped_turns > 0
            decisions = explain(h.records(state.run_id)).decisions
            assert [d.policy for d in decisions if d.subject == "prompt"] == [name]
            (request,) = h.backend.requests
            assert len(request.messages or ()) < len(history)

    run(scenario())
