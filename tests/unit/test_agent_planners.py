"""Planners: what every registered one keeps to; plans that are graphs; one of several answers."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_support import Harness, harness, run, spec
from obedient_model import obedient
from pentad.agent.events import RunEnded
from pentad.agent.exchange import Exchange
from pentad.agent.planning.base import (
    MAX_PARALLEL,
    MAX_SAMPLES,
    Alternatives,
    Decided,
    MadePlan,
    ModelCallDraft,
    ParallelDraft,
    Planner,
    Thought,
    View,
    in_sequence,
    majority,
    ready,
)
from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool, ToolServices
from pentad.agent.tools.functions import tool
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.registry import known, load
from pentad.testing.agents import scripted_models
from pentad.types import Budget, ToolCall

SERVICES = ToolServices(models=scripted_models([])[0])
TOOLS: tuple[Tool, ...] = tuple(load("tool", name)(SERVICES) for name in ("calculator", "calendar"))


def view(*exchanges: Exchange, step: int = 1, tools: tuple[Tool, ...] = TOOLS) -> View:
    state = RunState(
        run_id="r", spec=spec(), goal="What is 3 * 4?", tenant="t", step=step, exchanges=exchanges
    )
    return View(state=state, tools=tools)


@pytest.mark.parametrize("name", known("planner"))
class TestEveryPlanner:
    def planner(self, name: str) -> Planner:
        return build("planner", Choice(name=name))  # type: ignore[no-any-return]

    def calls(self, name: str, seen: View) -> tuple[ModelCallDraft, ...]:
        planner, state = self.planner(name), seen.state
        draft = planner.draft(seen)
        if isinstance(draft, Decided):
            taken = Exchange(step=state.step, purpose=draft.purpose, text=draft.text, label=draft.label)
            assert isinstance(planner.read(seen, taken), Thought), "nothing is known yet that could be done"
            after = replace(state, exchanges=(*state.exchanges, replace(taken, outcome="thought")))
            return self.calls(name, replace(seen, state=after))
        if isinstance(draft, Alternatives):
            return tuple(each for _, each in draft.ways)
        return draft.calls if isinstance(draft, ParallelDraft) else (draft,)

    def test_asks_the_same_of_the_same_view(self, name: str) -> None:
        assert self.calls(name, view()) == self.calls(name, view())

    def test_offers_tools_of_the_view_only_and_asks_for_tokens(self, name: str) -> None:
        for seen in (view(), view(tools=()), view(tools=TOOLS[:1])):
            for asked in self.calls(name, seen):
                assert {tool.name for tool in asked.tools} <= {tool.name for tool in seen.tools}
                assert asked.max_tokens >= 1
                assert any(group.pinned for group in asked.turns), "the goal is never left out"

    def test_the_goal_reaches_the_model(self, name: str) -> None:
        for asked in self.calls(name, view()):
            said = " ".join(m.content for group in asked.turns for m in group.messages)
            assert "3 * 4" in said + asked.system

    def test_asks_for_the_answer_in_the_last_step(self, name: str) -> None:
        for asked in self.calls(name, view(step=spec().max_steps)):
            assert asked.tool_choice.mode == "none"

    def test_reads_any_answer_without_an_exception_and_the_same_each_time(self, name: str) -> None:
        call = ToolCall(id="c", name="calculator", arguments='{"expression": "3 * 4"}')
        for purpose in ("plan", "act", "answer", "think"):
            for answer in (
                Exchange(step=1, purpose=purpose, text=""),
                Exchange(step=1, purpose=purpose, text="twelve"),
                Exchange(step=1, purpose=purpose, text="{" * 2000),
                Exchange(step=1, purpose=purpose, calls=(call,)),
            ):
                planner = self.planner(name)
                assert planner.read(view(), answer) == planner.read(view(), answer)

    def test_selects_one_of_the_candidates_and_says_why(self, name: str) -> None:
        candidates = [Exchange(step=1, purpose="answer", text=text) for text in ("11", "12", " 12")]
        chosen = self.planner(name).select(view(), candidates)
        assert 0 <= chosen.index < len(candidates)
        assert chosen.decision.policy == name
        assert len(chosen.decision.candidates) == len(candidates)
        assert chosen == self.planner(name).select(view(), candidates)

    def test_a_run_without_failures_is_not_given_up(self, name: str) -> None:
        assert not self.planner(name).exhausted(view().state)

    def looker(self) -> Tool:
        @tool(effects="none")
        def look(what: str) -> str:
            """Looks something up."""
            return f"twelve of {what}"

        return look

    async def worked(self, h: Harness, name: str, **fields: object) -> RunState:
        chosen = Choice(name=name)
        agent = spec(**{"tools": ("look",), "planner": chosen, "max_steps": 12, **fields})
        return await h.work(agent, "What is 3 * 4?")

    def test_a_run_comes_to_an_answer_and_holds_nothing_of_its_budget(
        self, name: str, tmp_path: pathlib.Path
    ) -> None:
        async def scenario() -> None:
            async with harness(tmp_path, [obedient], [self.looker()], repeat=True) as h:
                state = await self.worked(h, name)
                assert (state.status, state.error) == ("answered", None)
                assert "twelve" in state.answer
                assert state.ledger.held == {}
                assert h.runtime.explain(state.run_id).decisions, "the record says why"

        run(scenario())

    @pytest.mark.thorough
    def test_a_run_killed_after_an_event_comes_to_the_same_plan_and_answer(
        self, name: str, tmp_path: pathlib.Path
    ) -> None:
        async def scenario() -> None:
            async with harness(tmp_path, [obedient], [self.looker()], repeat=True) as h:
                state = await self.worked(h, name)
                records = h.records(state.run_id)
            telling = ("model_answered", "planner_decided", "planned", "tool_intended", "tool_returned")
            for cut in [n for n, record in enumerate(records, 1) if record.kind in telling]:
                async with harness(
                    tmp_path, [obedient], [self.looker()], repeat=True, journal=f"{cut}.db"
                ) as h:
                    await h.journal.begin(records[:cut], state.run_id)
                    await h.runtime.resume_all()
                    again = await h.runtime.wait(state.run_id)
                    assert (again.status, again.plan, again.answer) == (
                        state.status,
                        state.plan,
                        state.answer,
                    )
                    told = [(e.step, e.purpose, e.label, e.text, e.outcome) for e in again.exchanges]
                    assert told == [(e.step, e.purpose, e.label, e.text, e.outcome) for e in state.exchanges]

        run(scenario(), timeout_s=60)

    def test_a_short_budget_is_never_passed_and_the_run_ends(self, name: str, tmp_path: pathlib.Path) -> None:
        async def scenario() -> None:
            for tokens in (60, 400, 1000):
                async with harness(
                    tmp_path, [obedient], [self.looker()], repeat=True, journal=f"{tokens}.db"
                ) as h:
                    state = await self.worked(h, name, budget=Budget(tokens=tokens), max_tokens=16)
                    assert isinstance(h.records(state.run_id)[-1].event, RunEnded)
                    assert state.totals.prompt_tokens + state.totals.completion_tokens <= tokens
                    assert state.status in ("answered", "budget_exceeded", "failed", "out_of_steps")

        run(scenario(), timeout_s=60)


def test_most_agreeing_answer_is_selected_and_the_first_of_equals() -> None:
    def said(*texts: str) -> list[Exchange]:
        return [Exchange(step=1, purpose="answer", text=text) for text in texts]

    found = majority("react", said("a", "Twelve.", "twelve. ", "b"))
    assert found.index == 1
    assert dict(found.decision.candidates) == {"0": 0.25, "1": 0.5, "2": 0.5, "3": 0.25}
    assert majority("react", said("b", "a")).index == 0


def test_calls_agree_by_name_and_arguments_whatever_is_said_beside_them() -> None:
    def called(text: str, arguments: str) -> Exchange:
        call = ToolCall(id=text, name="calculator", arguments=arguments)
        return Exchange(step=1, purpose="act", text=text, calls=(call,))

    answers = [called("x", '{"e": 1}'), called("y", '{"e": 2}'), called("z", '{"e": 2}')]
    assert majority("react", answers).index == 1


GOALS = (("calculator", "a"), ("calendar", "b"), ("", "c"))


def test_a_plan_may_say_what_each_sub_goal_waits_for() -> None:
    plan = MadePlan(goals=GOALS, needs=((), (), (0, 1)))
    assert plan.needs is not None
    assert ready(plan.needs, ()) == (0, 1)
    assert ready(plan.needs, {0}) == (1,)
    assert ready(plan.needs, {0, 1}) == (2,)
    assert ready(in_sequence(3), {0}) == (1,)


@pytest.mark.parametrize("needs", [((),), ((), (1,), ()), ((), (2,), ()), ((), (-1,), ()), ((), (0, 0), ())])
def test_a_plan_whose_needs_do_not_fit_is_refused(needs: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="sub-goal"):
        MadePlan(goals=GOALS, needs=needs)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    count = draw(st.integers(1, 8))
    return tuple(
        tuple(draw(st.lists(st.integers(0, place - 1), unique=True))) if place else ()
        for place in range(count)
    )


@given(graphs())
def test_every_plan_can_be_worked_through_and_nothing_begins_before_what_it_needs(
    needs: tuple[tuple[int, ...], ...],
) -> None:
    MadePlan(goals=tuple(("", str(i)) for i in range(len(needs))), needs=needs)
    over: set[int] = set()
    while len(over) < len(needs):
        begun = ready(needs, over)
        assert begun
        assert all(set(needs[place]) <= over for place in begun)
        over |= set(begun)


def test_drafts_are_bounded() -> None:
    one = ModelCallDraft(purpose="act", system="", turns=(), max_tokens=8)
    with pytest.raises(InvalidRequest, match=f"samples is {MAX_SAMPLES + 1}"):
        ModelCallDraft(purpose="act", system="", turns=(), max_tokens=8, samples=MAX_SAMPLES + 1)
    for count in (0, 1, MAX_PARALLEL + 1):
        with pytest.raises(ValueError, match=f"2 to {MAX_PARALLEL} calls"):
            ParallelDraft(calls=(one,) * count)
    assert len(ParallelDraft(calls=(one, one)).calls) == 2
