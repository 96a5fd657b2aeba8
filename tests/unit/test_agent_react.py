"""ReAct: the questions it asks and how it reads the answers, without any runtime."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from agent_support import spec
from pentad.agent.events import ToolReturned
from pentad.agent.planning.base import Answers, MadePlan, Refuses, Unusable, View, WantsTools
from pentad.agent.planning.prompts import answer_shots, call_shots, grounded, plan_shots
from pentad.agent.planning.react import React
from pentad.agent.state import Exchange, RunState
from pentad.agent.tools.base import Tool, ToolServices
from pentad.registry import load
from pentad.testing.agents import scripted_models
from pentad.types import Message, ToolCall

SERVICES = ToolServices(models=scripted_models([])[0])
TOOLS: tuple[Tool, ...] = tuple(load("tool", name)(SERVICES) for name in ("calculator", "calendar"))
GUIDED = React(mode="guided", min_plan=2, max_plan=3)
PLAN = (("calculator", "3 * 4"), ("calendar", "which weekday is 2026-12-25"))
PLAN_TEXT = json.dumps({"plan": [{"task": task, "tool": tool} for tool, task in PLAN]})


def view(*exchanges: Exchange, **fields: object) -> View:
    plan = PLAN if any(e.outcome in ("planned", "replanned") for e in exchanges) else None
    step = len(exchanges) + 1
    made = RunState(run_id="r", spec=spec(), goal="3 * 4 and the weekday?", tenant="t", plan=plan, step=step)
    return View(state=replace(made, exchanges=exchanges, **fields), tools=TOOLS)  # type: ignore[arg-type]


def acted(step: int, tool: str, content: str, status: str = "ok") -> Exchange:
    result = ToolReturned(step=step, index=0, call_id="c", tool=tool, status=status, content=content)  # type: ignore[arg-type]
    return Exchange(
        step=step,
        purpose="act",
        calls=(ToolCall(id="c", name=tool, arguments="{}"),),
        results={0: result},
        outcome="called_tools" if status == "ok" else "failed",
    )


PLANNED = Exchange(step=1, purpose="plan", text=PLAN_TEXT, outcome="planned")


def test_guided_first_asks_for_a_plan_that_names_only_known_tools() -> None:
    draft = GUIDED.draft(view())
    assert draft.purpose == "plan"
    plan = draft.format.value["properties"]["plan"]
    assert (plan["minItems"], plan["maxItems"]) == (2, 3)
    assert plan["items"]["properties"]["tool"] == {"enum": ["calculator", "calendar"]}
    assert draft.tools == ()
    assert draft.turns[-1].messages[-1].content == "Goal: 3 * 4 and the weekday?"


def test_guided_then_asks_one_short_question_per_sub_goal() -> None:
    first = GUIDED.draft(view(PLANNED))
    assert (first.purpose, first.tool_choice.mode, first.tool_choice.name) == ("act", "named", "calculator")
    assert [t.name for t in first.tools] == ["calculator"]
    assert first.turns[-1].messages[-1].content == "3 * 4"
    second = GUIDED.draft(view(PLANNED, acted(2, "calculator", "3 * 4 = 12")))
    assert second.tool_choice.name == "calendar"
    assert second.turns[-1].messages[-1].content == "which weekday is 2026-12-25"


def test_guided_at_last_asks_for_the_answer_from_what_the_tools_said() -> None:
    done = (PLANNED, acted(2, "calculator", "3 * 4 = 12"), acted(3, "calendar", "a Friday"))
    draft = GUIDED.draft(view(*done))
    assert (draft.purpose, draft.tool_choice.mode, draft.next_hint) == ("answer", "none", "end")
    asked = draft.turns[-1].messages[-1].content
    assert asked == "Facts:\n- 3 * 4 = 12\n- a Friday\n\nQuestion: 3 * 4 and the weekday?"


def test_a_failed_call_is_tried_again_with_its_problem() -> None:
    draft = GUIDED.draft(view(PLANNED, acted(2, "calculator", "division by zero", "failed")))
    assert draft.tool_choice.name == "calculator"
    assert draft.turns[-1].messages[-1].content == "3 * 4\nThe last try failed: division by zero"


def test_a_plan_that_keeps_failing_is_made_anew_once() -> None:
    failed = [acted(i, "calculator", "no", "failed") for i in (2, 3)]
    draft = GUIDED.draft(view(PLANNED, *failed))
    assert draft.purpose == "plan"
    assert "The last plan failed: no" in draft.turns[-1].messages[-1].content
    again = Exchange(step=4, purpose="plan", text=PLAN_TEXT, outcome="replanned")
    draft = GUIDED.draft(view(PLANNED, *failed, again, *failed))
    assert draft.purpose == "act"


def test_the_last_step_must_answer() -> None:
    assert GUIDED.draft(view(PLANNED, step=8)).purpose == "answer"
    assert React().draft(view(step=8)).tool_choice.mode == "none"


def test_the_answer_to_a_plan_is_checked() -> None:
    def read(text: str, reason: str = "stop") -> object:
        return GUIDED.read(view(), Exchange(step=1, purpose="plan", text=text, reason=reason))

    good = read(PLAN_TEXT)
    assert isinstance(good, MadePlan)
    assert good.goals == PLAN
    assert good.decisions[0].chosen == "calculator, calendar"
    assert read('{"plan": [{"ta', "length") == Unusable(
        problem="the plan is no JSON of the asked form (it was cut at plan_tokens)"
    )
    for bad in ("[]", '{"plan": 3}', '{"plan": []}', PLAN_TEXT.replace("calendar", "oracle")):
        assert isinstance(read(bad), Unusable)


def test_an_answer_to_an_act_is_calls_text_or_of_no_use() -> None:
    call = ToolCall(id="c", name="calculator", arguments="{}")
    free = React()
    assert free.read(view(), Exchange(step=1, purpose="act", calls=(call,))) == WantsTools(calls=(call,))
    assert free.read(view(), Exchange(step=1, purpose="act", text=" hi ")) == Answers(text="hi")
    assert isinstance(free.read(view(), Exchange(step=1, purpose="act")), Unusable)
    failed = Exchange(step=1, purpose="act", outcome="failed")
    assert isinstance(free.read(view(failed), Exchange(step=2, purpose="act")), Refuses)
    assert isinstance(GUIDED.read(view(PLANNED), Exchange(step=2, purpose="act", text="x")), Unusable)


def test_free_mode_shows_the_whole_transcript_and_lets_the_model_choose() -> None:
    state = view(PLANNED, acted(2, "calculator", "12"), history=(Message(role="user", content="before"),))
    draft = React().draft(state)
    assert draft.tool_choice.mode == "auto"
    assert draft.tool_choice.parallel
    assert [t.name for t in draft.tools] == ["calculator", "calendar"]
    assert [[m.role for m in turn.messages] for turn in draft.turns] == [
        ["user"],
        ["user"],
        ["assistant", "tool"],
    ]
    assert [turn.pinned for turn in draft.turns] == [False, True, False]
    assert "1. 3 * 4" in draft.system


def test_a_model_that_only_repeats_itself_is_asked_for_the_answer() -> None:
    twice = (acted(1, "calculator", "12"), acted(2, "calculator", "12"))
    draft = React(max_plan=0).draft(view(*twice))
    assert (draft.purpose, draft.tools) == ("answer", ())
    assert draft.turns[-1].messages[-1].content.startswith("Facts:\n- 12\n\nQuestion:")
    other = (acted(1, "calculator", "12"), acted(2, "calendar", "12"))
    assert React(max_plan=0).draft(view(*other)).purpose == "act"


def test_without_tools_or_with_no_plan_wanted_it_answers_at_once() -> None:
    assert React(max_plan=0).draft(view()).purpose == "act"
    bare = replace(view(), tools=())
    assert React().draft(bare).tool_choice.mode == "none"


def test_worked_examples_come_from_the_tools_in_every_order() -> None:
    shots = plan_shots(TOOLS)
    firsts = [json.loads(m.content)["plan"][0]["tool"] for m in shots if m.role == "assistant"]
    assert set(firsts) == {"calculator", "calendar"}
    # Spelled as the constraint spells it.
    assert all(": " not in m.content for m in shots if m.role == "assistant")
    assert [m.role for m in call_shots(TOOLS[0])] == ["user", "assistant"] * len(TOOLS[0].examples)
    for message in answer_shots(TOOLS):
        if message.role == "assistant":
            assert message.content.endswith(".")
    bare = replace(TOOLS[0], examples=())
    assert plan_shots((bare,)) == answer_shots((bare,)) == call_shots(bare) == ()


def test_a_grounded_answer_is_made_of_what_the_tools_said() -> None:
    done = (PLANNED, acted(2, "calculator", "3 * 4 = 12"), acted(3, "calendar", "2026-12-25 is a Friday"))
    draft = replace(GUIDED, grounded=True).draft(view(*done))
    assert draft.format.kind == "regex"
    pattern = re.compile(draft.format.value)
    assert pattern.fullmatch("3 * 4 = 12, and 2026-12-25 is a Friday.")
    assert pattern.fullmatch("Friday, and 12.")
    for wrong in (
        "3 * 4 = 12, and 2026-12-25 is.",
        "3 * 4 = 13, and 2026-12-25 is a Friday.",
        "3 * 4 = 12, and 2026-12-25 is a Thursday.",
        "3 * 4 = 12.",
        "",
    ):
        assert not pattern.fullmatch(wrong)
    assert GUIDED.draft(view(*done)).format.kind == "text"
    assert grounded([]) is None
    assert grounded(["word" * 1000]) is None


@pytest.mark.parametrize("wrong", [{"min_plan": -1}, {"max_plan": -1}, {"min_plan": 5, "max_plan": 2}])
def test_options_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="min_plan"):
        React(**wrong)  # type: ignore[arg-type]
