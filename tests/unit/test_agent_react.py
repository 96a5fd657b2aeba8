"""ReAct: the questions it asks and how it reads the answers, without any runtime."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from agent_support import spec
from pentad.agent.exchange import Exchange
from pentad.agent.planning.base import Answers, MadePlan, Refuses, Unusable, View, WantsTools
from pentad.agent.planning.intent import asks_for_change, parts
from pentad.agent.planning.prompts import answer_shots, call_shots, grounded, plan_shots, unavailable
from pentad.agent.planning.react import React
from pentad.agent.state import RunState
from pentad.agent.tool_events import ToolReturned
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
    draft = React().draft(view(step=8))
    assert draft.tool_choice.mode == "none"
    assert draft.tools == ()
    shown = tuple(tool.spec for tool in TOOLS)
    assert draft.shown_tools == shown  # so that the prompt begins as one that may call them
    assert React().draft(replace(view(step=8), presented=shown[:1])).shown_tools == shown[:1]


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
        ["user"],
    ]
    assert [turn.pinned for turn in draft.turns] == [False, True, False, True]
    assert "1. 3 * 4" in draft.turns[1].messages[0].content
    assert draft.turns[-1].messages[0].content == "Next: which weekday is 2026-12-25 (with calendar)"
    done = (PLANNED, acted(2, "calculator", "12"), acted(3, "calendar", "a Friday"))
    draft = React().draft(view(*done))
    assert (draft.purpose, draft.tools) == ("answer", ())
    assert draft.turns[-1].messages[0].content.startswith("Facts:\n- 12\n- a Friday\n\nQuestion: 3 * 4")


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
    plans = [json.loads(m.content)["plan"] for m in shots if m.role == "assistant"]
    assert {plan[0]["tool"] for plan in plans} == {"calculator", "calendar"}
    assert {len(plan) for plan in plans} == {1, 2}
    empty = [m.content for m in plan_shots(TOOLS, may_be_empty=True) if m.content == '{"plan":[]}']
    assert len(empty) == 2
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


class TestWhatCameOfThePlan:
    """A sub-goal that keeps failing is given up; the others go on, and the answer says what failed."""

    def test_after_its_tries_the_next_sub_goal_has_its_turn(self) -> None:
        done = acted(2, "calculator", "3 * 4 = 12")
        lost = [acted(i, "calendar", "no such date", "failed") for i in (3, 4, 5)]
        draft = GUIDED.draft(view(PLANNED, done, *lost))
        assert draft.purpose == "answer"
        asked = draft.turns[-1].messages[-1].content
        assert asked.startswith(
            "Facts:\n- 3 * 4 = 12\n- which weekday is 2026-12-25: failed (calendar: no such date)\n\n"
        )
        first = [acted(i, "calculator", "no", "failed") for i in (2, 3, 4)]
        again = replace(GUIDED, replans=0).draft(view(PLANNED, *first))
        assert (again.purpose, again.tool_choice.name) == ("act", "calendar")
        assert not GUIDED.exhausted(view(PLANNED, *first).state)

    def test_what_has_been_done_is_not_planned_and_done_again(self) -> None:
        lost = [acted(i, "calendar", "no", "failed") for i in (3, 4)]
        assert GUIDED.draft(view(PLANNED, acted(2, "calculator", "12"), *lost)).purpose == "act"

    def test_free_answers_from_what_it_knows_before_it_gives_up(self) -> None:
        free = React(max_plan=0)
        lost = [acted(i, "calendar", "no", "failed") for i in (2, 3, 4)]
        state = view(acted(1, "calculator", "3 * 4 = 12"), *lost)
        assert not free.exhausted(state.state)
        draft = free.draft(state)
        assert draft.purpose == "answer"
        asked = draft.turns[-1].messages[-1].content
        assert asked.startswith("Facts:\n- 3 * 4 = 12\n- calendar failed: no\n")
        assert free.exhausted(view(*lost).state)

    def test_a_failure_that_was_mended_is_no_fact(self) -> None:
        tries = (
            acted(1, "calculator", "no", "failed"),
            acted(2, "calculator", "12"),
            acted(3, "calculator", "12"),
        )
        draft = React(max_plan=0).draft(view(*tries))
        assert "failed" not in draft.turns[-1].messages[-1].content


class TestPlansOfSmallModels:
    def read(self, planner: React, goal: str, *goals: tuple[str, str]) -> object:
        text = json.dumps({"plan": [{"task": task, "tool": tool} for tool, task in goals]})
        return planner.read(view(goal=goal), Exchange(step=1, purpose="plan", text=text))

    def test_a_task_copied_from_an_example_is_left_out(self) -> None:
        shots = " ".join(m.content for m in plan_shots(TOOLS))
        date = re.search(r"\d{4}-\d{2}-\d{2}", shots)
        assert date is not None
        copied = ("calendar", f"which weekday is {date[0]}")
        planner = React(mode="guided", min_plan=1)
        made = self.read(planner, "What is 17 times 23?", ("calculator", "17 times 23"), copied)
        assert isinstance(made, MadePlan)
        assert made.goals == (("calculator", "17 times 23"),)
        assert isinstance(self.read(planner, "What is 17 times 23?", copied), Unusable)
        own = self.read(planner, f"Which weekday is {date[0]}?", copied)
        assert isinstance(own, MadePlan)

    def test_a_task_is_planned_once(self) -> None:
        task = ("calculator", "17 times 23")
        made = self.read(React(mode="guided"), "What is 17 times 23?", task, task)
        assert isinstance(made, MadePlan)
        assert made.goals == (task,)

    def test_arguments_copied_from_an_example_are_not_called(self) -> None:
        def read(expression: str) -> object:
            call = ToolCall(id="c", name="calculator", arguments=json.dumps({"expression": expression}))
            return GUIDED.read(view(PLANNED), Exchange(step=2, purpose="act", calls=(call,)))

        assert isinstance(read("3 * 4"), WantsTools)
        example = TOOLS[0].examples[0].arguments["expression"]
        assert isinstance(read(example), Unusable)


class TestAnswersOfSmallModels:
    WORK = (acted(1, "calculator", "17 * 23 = 391"), acted(2, "calendar", "2026-12-25 is a Friday"))

    def read(self, text: str, *more: Exchange, purpose: str = "answer") -> object:
        answer = Exchange(step=9, purpose=purpose, text=text)  # type: ignore[arg-type]
        return React().read(view(PLANNED, *self.WORK, *more), answer)

    @pytest.mark.parametrize(
        "text",
        [
            '{{"name": "calculator", "arguments": {"expression": "1"}}}',
            '```json\n{"name": "calculator", "arguments": {}}\n```',
            '<tool_call>\n{"name": "oracle"}\n</tool_call>',
            "<tool_response>\n391\n</tool_response>",
            'I will call it: {"name": "calendar", "arguments": {"operation": "today"}}',
        ],
    )
    def test_a_call_written_as_text_is_no_answer(self, text: str) -> None:
        read = self.read(text)
        assert isinstance(read, Unusable)
        assert "tool call" in read.problem

    def test_text_about_a_name_is_an_answer(self) -> None:
        text = '391 on Friday; a call is {"name": "other", "arguments": {}}'
        assert self.read(text) == Answers(text=text)

    def test_a_fact_that_the_answer_leaves_out_is_asked_for_once(self) -> None:
        read = self.read("It is a Friday.")
        assert read == Unusable(problem="it leaves out: 17 * 23 = 391")
        asked = Exchange(step=3, purpose="answer", text="It is a Friday.", outcome="failed", detail="x")
        assert self.read("It is a Friday.", asked) == Answers(text="It is a Friday.")
        assert self.read("391, a Friday.") == Answers(text="391, a Friday.")

    def test_what_the_plan_still_has_is_asked_for_once(self) -> None:
        state = view(PLANNED, acted(2, "calculator", "3 * 4 = 12"))
        read = React().read(state, Exchange(step=3, purpose="act", text="12, and a Friday."))
        assert read == Unusable(problem="still to be done with a tool: which weekday is 2026-12-25")


class TestQuestionsChangeNothing:
    ORDER = replace(TOOLS[0], name="order_lamps", effects="unkeyed")

    @pytest.mark.parametrize(
        ("goal", "changes"),
        [
            ("How many lamps are there?", False),
            ("how many lamps do we have", False),
            ("Could you tell me how many lamps there are?", False),
            ("Please list the lamps.", False),
            ("What is 3 times 4, and which weekday is 2026-12-25?", False),
            ("Is there a lamp? If so, how many?", False),
            ("Wie viele Lampen gibt es?", False),
            ("ランプはいくつありますか？", False),
            ("Order ten lamps.", True),
            ("Could you please order ten lamps?", True),
            ("Would you order ten lamps?", True),
            ("How many lamps are there, and then order two more.", True),
            ("How many lamps are there? Order two more.", True),
            ("I need ten lamps by Monday.", True),
            ("Remember that I like tea", True),
        ],
    )
    def test_a_goal_that_only_asks_is_told_from_one_that_may_want_something_done(
        self, goal: str, changes: bool
    ) -> None:
        assert asks_for_change(goal) is changes

    @pytest.mark.parametrize(
        ("goal", "count"),
        [
            ("What is 17 times 23?", 1),
            ("What is 347 times 28, and which weekday is 2026-12-25?", 2),
            ("What is 3 + 4 and how much is 5 * 6?", 2),
            ("How tall is it, who built it, and what is 3 times 4?", 3),
            ("Compute 5 / 4. Compute 19 * 19. On which day?", 2),
            ("I like tea and rice.", 1),
            ("", 1),
        ],
    )
    def test_the_parts_of_a_goal_are_counted(self, goal: str, count: int) -> None:
        assert parts(goal) == count
        schema = React(mode="guided", min_plan=1).draft(view(goal=goal)).format.value
        assert schema["properties"]["plan"]["minItems"] == count
        free = React(mode="guided").draft(view(goal=goal)).format.value
        assert free["properties"]["plan"]["minItems"] == 0

    def test_guided_withholds_tools_with_effects_from_a_question_and_free_leaves_it_to_the_model(
        self,
    ) -> None:
        state = view(goal="How many lamps are there?").state
        tools = (*TOOLS, self.ORDER)
        assert list(GUIDED.withholds(state, tools)) == ["order_lamps"]
        assert React().withholds(state, tools) == {}
        assert GUIDED.withholds(view(goal="Order ten lamps.").state, tools) == {}

    def test_what_is_not_available_is_said_with_the_reason(self) -> None:
        seen = replace(view(), withheld=(("order_lamps", "it may change something"),))
        for planner in (GUIDED, React(), React(max_plan=0)):
            assert "Not available now: order_lamps (it may change something)." in planner.draft(seen).system
        many = tuple((f"t{i}", "w") for i in range(9))
        assert unavailable(many).endswith("t5 (w), and 3 more.")
