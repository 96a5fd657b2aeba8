"""The planner `reflect`: a lesson after each failure, shown to every later try, kept over a restart."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import pytest

from agent_support import harness, run, spec
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.errors import ToolFailed
from pentad.testing.backends import Item
from pentad.types import Request, ToolCall

LESSON = "The door opens with the word mellon."


def door() -> Tool:
    @tool(effects="none")
    def speak(word: str) -> str:
        """Speaks a word at the door."""
        if word != "mellon":
            raise ToolFailed(f"the door heard {word} and stays shut")
        return "the door is open"

    return speak


def turn(request: Request) -> Sequence[Item]:
    """Says the right word only once the lesson is before it."""
    system = next((m.content for m in request.messages or () if m.role == "system"), "")
    if system.startswith("You look back"):
        return [LESSON]
    if any(m.role == "tool" and "open" in m.content for m in request.messages or ()) or not request.tools:
        return ["It is open."]
    word = "mellon" if LESSON in system else "please"
    return [ToolCall(id=request.id, name="speak", arguments=json.dumps({"word": word}))]


def agent(**options: object) -> object:
    return spec(
        tools=("speak",), planner=Choice(name="reflect", options={"max_plan": 0, **options}), max_steps=12
    )


@pytest.mark.row("plan-reflect", "mechanism")
def test_a_retry_with_a_lesson_does_what_blind_retries_do_not(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [turn], [door()], repeat=True) as h:
            state = await h.work(agent(), "Open the door.")  # type: ignore[arg-type]
            assert (state.status, state.answer) == ("answered", "It is open.")
            assert [(e.purpose, e.outcome) for e in state.exchanges] == [
                ("act", "failed"),
                ("think", "thought"),
                ("act", "called_tools"),
                ("act", "answered"),
            ]
            asked = (h.backend.requests[1].messages or ())[-1].content
            assert "the door heard please and stays shut" in asked
            assert LESSON in [
                d.chosen for d in h.runtime.explain(state.run_id).decisions if d.subject == "lesson"
            ]
        async with harness(tmp_path, [turn], [door()], repeat=True, journal="blind.db") as h:
            blind = await h.work(agent(lessons=0), "Open the door.")  # type: ignore[arg-type]
            assert blind.status == "failed"
            assert sum(e.outcome == "failed" for e in blind.exchanges) == 3

    run(scenario())


def test_a_lesson_is_kept_over_a_restart(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [turn], [door()], repeat=True) as h:
            state = await h.work(agent(), "Open the door.")  # type: ignore[arg-type]
            records = h.records(state.run_id)
        cut = 1 + [n for n, r in enumerate(records) if r.kind == "step_ended"][1]
        async with harness(tmp_path, [turn], [door()], repeat=True, journal="again.db") as h:
            await h.journal.begin(records[:cut], state.run_id)
            await h.runtime.resume_all()
            again = await h.runtime.wait(state.run_id)
            assert (again.status, again.answer) == ("answered", "It is open.")
            first = (h.backend.requests[0].messages or ())[0].content
            assert LESSON in first

    run(scenario())


@pytest.mark.row("plan-reflect", "mechanism")
def test_an_answer_that_the_model_finds_wanting_is_written_anew_with_its_reason(
    tmp_path: pathlib.Path,
) -> None:
    why = "it does not say the colour"

    def judging(request: Request) -> Sequence[Item]:
        asked = (request.messages or ())[-1].content
        if request.format.kind == "json_schema":
            good = asked.endswith("The door is red.")
            return [json.dumps({"why": "" if good else why, "good": good})]
        system = next((m.content for m in request.messages or () if m.role == "system"), "")
        return ["The door is red." if why in system else "It is a door."]

    async def scenario() -> None:
        async with harness(tmp_path, [judging], repeat=True) as h:
            made = spec(
                planner=Choice(name="reflect", options={"max_plan": 0, "critique": True}), max_steps=12
            )
            state = await h.work(made, "Describe the door.")
            assert (state.status, state.answer) == ("answered", "The door is red.")
            said = [d.chosen for d in h.runtime.explain(state.run_id).decisions if d.subject == "critique"]
            assert said == ["again", "accept"]

    run(scenario())


def test_with_steps_for_one_try_only_nothing_is_reflected(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [turn], [door()], repeat=True) as h:
            made = spec(
                tools=("speak",), planner=Choice(name="reflect", options={"max_plan": 0}), max_steps=2
            )
            state = await h.work(made, "Open the door.")
            assert [e.purpose for e in state.exchanges] == ["act", "answer"]

    run(scenario())
