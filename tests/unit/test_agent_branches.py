"""Steps of several model calls at once, and calls with several answers: one order, each asked once."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar

import pytest

from agent_support import Harness, call, harness, run, spec
from pentad import registry
from pentad.agent.exchange import Exchange
from pentad.agent.loading import agent_from
from pentad.agent.model_events import ModelAnswered, SampleSelected
from pentad.agent.planning.base import (
    Answers,
    Draft,
    MadePlan,
    MessageGroup,
    ModelCallDraft,
    ParallelDraft,
    Reading,
    Selection,
    View,
    WantsTools,
    in_sequence,
    majority,
    ready,
)
from pentad.agent.state import RunState
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.execution.backend import ChoiceDone, TextDelta
from pentad.testing.backends import Item
from pentad.types import Budget, Message, Request, Usage

GOALS = (("look", "one"), ("look", "two"), ("look", "both"))
NEEDS = ((), (), (0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Works through a plan that is a graph, sub-goals that wait for none at once, then answers by vote."""

    samples: int = 1
    name: ClassVar[str] = "graph"

    def withholds(self, state: RunState, tools: Sequence[Tool]) -> Mapping[str, str]:
        return {}

    def exhausted(self, state: RunState) -> bool:
        return False

    def draft(self, view: View) -> Draft:
        state = view.state
        if state.plan is None:
            return self._call("plan", "plan")
        over = {e.goal for e in state.closed if e.goal is not None}
        now = ready(state.plan_needs or in_sequence(len(state.plan)), [g for g in over if g is not None])
        calls = tuple(self._call("act", state.plan[place][1], goal=place) for place in now)
        if not calls:
            return self._call("answer", "answer", samples=self.samples)
        return calls[0] if len(calls) == 1 else ParallelDraft(calls=calls)

    def select(self, view: View, candidates: Sequence[Exchange]) -> Selection:
        return majority(self.name, candidates)

    def read(self, view: View, answer: Exchange) -> Reading:
        assert view.state.open in ((), (answer,)), "each is read as if it were alone"
        if answer.purpose == "plan":
            return MadePlan(goals=GOALS, needs=NEEDS)
        return WantsTools(calls=answer.calls) if answer.calls else Answers(text=answer.text)

    def _call(self, purpose: str, text: str, **fields: int) -> ModelCallDraft:
        turn = MessageGroup(messages=(Message(role="user", content=text),), pinned=True)
        return ModelCallDraft(purpose=purpose, system="s", turns=(turn,), max_tokens=40, **fields)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    table = dict(registry._TABLE)
    table["planner"] = {**table["planner"], "graph": f"{__name__}:Graph"}
    monkeypatch.setattr(registry, "_TABLE", table)


def looker() -> tuple[Tool, list[str]]:
    seen: list[str] = []

    @tool(effects="none")
    def look(what: str) -> str:
        """Looks."""
        seen.append(what)
        return f"saw {what}"

    return look, seen


def agent(**options: int) -> object:
    return Choice(name="graph", options=options)


def by_task(hold: Mapping[str, asyncio.Event] | None = None, answers: Sequence[str] = ("done",)) -> object:
    """The turn that answers by the task asked for; a held task waits for its event."""

    def turn(request: Request) -> Sequence[Item]:
        asked = (request.messages or ())[-1].content
        if asked == "plan":
            return ["planned"]
        if asked == "answer":
            said: list[Item] = [TextDelta(text=text, choice=i) for i, text in enumerate(answers)]
            ends: list[Item] = [ChoiceDone(reason="stop", choice=i) for i in range(len(answers))]
            return [*said, *ends, Usage(prompt_tokens=10, completion_tokens=3 * len(answers))]
        wait: list[Item] = [hold[asked]] if hold and asked in hold else []
        return [*wait, call("look", asked, what=asked)]

    return turn


async def until(h: Harness, run_id: str, kind: str, count: int) -> None:
    async with asyncio.timeout(20), aclosing(h.runtime.events(run_id)) as records:
        async for record in records:
            count -= record.kind == kind
            if not count:
                return


def test_sub_goals_that_wait_for_none_run_at_once_and_the_others_after_them(tmp_path: pathlib.Path) -> None:
    look, seen = looker()

    async def scenario() -> None:
        async with harness(tmp_path, [by_task()], [look], repeat=True) as h:
            state = await h.work(spec(tools=("look",), planner=agent(), max_steps=9))
            assert (state.status, state.answer) == ("answered", "done")
            assert state.plan_needs == NEEDS
            assert [(e.step, e.goal, e.branch, e.outcome) for e in state.exchanges if e.purpose == "act"] == [
                (2, 0, 0, "called_tools"),
                (2, 1, 1, "called_tools"),
                (3, 2, 0, "called_tools"),
            ]
            assert sorted(seen[:2]) == ["one", "two"]
            assert seen[2:] == ["both"]
            graph = h.backend.requests[-1].context.graph
            assert graph["3-look"] == ("1-look", "2-look"), "the layers below see the plan's graph"
            assert "2-look" not in graph

    run(scenario())


def test_answers_and_results_are_journaled_in_order_whatever_ends_first(
    tmp_path: pathlib.Path,
) -> None:
    look, seen = looker()
    first = asyncio.Event()

    async def scenario() -> None:
        async with harness(tmp_path, [by_task({"one": first})], [look], repeat=True) as h:
            run_id = await h.runtime.start(spec(tools=("look",), planner=agent(), max_steps=9), "go")
            await until(h, run_id, "model_asked", 3)
            await asyncio.sleep(0.2)
            answered = [r for r in h.records(run_id) if r.kind == "model_answered"]
            assert len(answered) == 1, "the second branch's answer waits for the first's"
            first.set()
            await h.runtime.wait(run_id)
            events = [r.event for r in h.records(run_id)]
            assert [e.branch for e in events if isinstance(e, ModelAnswered)] == [0, 0, 1, 0, 0]
            assert [(e.step, e.index) for e in events if isinstance(e, ToolReturned)] == [
                (2, 0),
                (2, 1),
                (3, 0),
            ]
            assert seen[-1] == "both"

    run(scenario())


def test_after_a_restart_only_the_branches_without_an_answer_are_asked(tmp_path: pathlib.Path) -> None:
    look, seen = looker()

    async def scenario() -> None:
        lead = spec(tools=("look",), planner=agent(), max_steps=9)
        async with harness(tmp_path, [by_task({"two": asyncio.Event()})], [look], repeat=True) as h:
            run_id = await h.runtime.start(lead, "go")
            await until(h, run_id, "model_answered", 2)
        async with harness(tmp_path, [by_task()], [look], repeat=True) as h:
            assert await h.runtime.resume_all() == [run_id]
            state = await h.runtime.wait(run_id)
            assert state.status == "answered"
            asked = [(r.messages or ())[-1].content for r in h.backend.requests]
            assert asked == ["two", "both", "answer"]
            assert sorted(seen) == ["both", "one", "two"]

    run(scenario())


def test_of_several_samples_one_is_taken_and_all_are_journaled(tmp_path: pathlib.Path) -> None:
    look, _ = looker()
    answers = ("seven", "eight", "eight")

    async def scenario() -> None:
        async with harness(tmp_path, [by_task(answers=answers)], [look], repeat=True) as h:
            lead = spec(tools=("look",), planner=agent(samples=3), max_steps=9, budget=Budget(tokens=4000))
            state = await h.work(lead)
            assert (state.status, state.answer) == ("answered", "eight")
            assert h.backend.requests[-1].sampling.n == 3
            events = [r.event for r in h.records(state.run_id)]
            last = [e for e in events if isinstance(e, ModelAnswered)][-1]
            assert tuple(c.text for c in last.candidates) == answers
            (taken,) = [e for e in events if isinstance(e, SampleSelected)]
            assert taken.index == 1
            assert taken.decisions[0].candidates == (("0", 1 / 3), ("1", 2 / 3), ("2", 2 / 3))
            assert "sample" in {d.subject for d in h.runtime.explain(state.run_id).decisions}
            assert state.ledger.held == {}

    run(scenario())


def test_a_selection_that_a_crash_cut_off_is_made_without_asking_again(tmp_path: pathlib.Path) -> None:
    look, _ = looker()
    lead = spec(tools=("look",), planner=agent(samples=2), max_steps=9)

    async def scenario() -> None:
        async with harness(tmp_path, [by_task(answers=("a", "b"))], [look], repeat=True) as h:
            state = await h.work(lead)
            records = h.records(state.run_id)
        cut = next(i for i, r in enumerate(records) if isinstance(r.event, SampleSelected))
        async with harness(tmp_path, [by_task()], [look], repeat=True, journal="again.db") as h:
            await h.journal.begin(records[:cut], state.run_id)
            await h.runtime.resume_all()
            again = await h.runtime.wait(state.run_id)
            assert (again.status, again.answer) == ("answered", "a")
            assert h.backend.requests == []

    run(scenario())


def test_an_agent_file_draws_several_answers_and_takes_the_majority(tmp_path: pathlib.Path) -> None:
    lead = agent_from(
        {"name": "a", "planner": {"max_plan": 0, "samples": 3}, "max_steps": 1, "temperature": 1}
    )
    ends: list[Item] = [ChoiceDone(reason="stop", choice=i) for i in range(3)]
    said: list[Item] = [TextDelta(text=text, choice=i) for i, text in enumerate(("4", "5", "5"))]

    async def scenario() -> None:
        async with harness(tmp_path, [[*said, *ends]]) as h:
            state = await h.work(lead)
            assert (state.status, state.answer) == ("answered", "5")
            assert h.backend.requests[0].sampling.n == 3

    run(scenario())
