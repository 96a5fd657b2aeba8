"""Planners that reason: `cot` with its vote and bounds, `flexible` that chooses, `recon` that hides."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pytest

from agent_support import Harness, call, harness, run, spec
from pentad.agent.planning.difficulty import difficulty_of
from pentad.agent.planning.final_answer import canonical_answer, final_answer, vote
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.execution.backend import ChoiceDone, TextDelta
from pentad.testing.backends import Item, Turn
from pentad.types import Budget, Message, Request, Usage

GOAL = "Ann has 3 boxes of 4 apples and eats 2. How many are left?"
RIGHT = "3 * 4 = 12, and 12 - 2 = 10.\nAnswer: 10"


def several(*texts: str) -> list[Item]:
    said: list[Item] = [TextDelta(text=text, choice=i) for i, text in enumerate(texts)]
    return [*said, *(ChoiceDone(reason="stop", choice=i) for i in range(len(texts)))]


def cot(**options: object) -> Choice:
    return Choice(name="cot", options=options)


def subjects(h: Harness, run_id: str, subject: str) -> list[str]:
    return [d.chosen for d in h.runtime.explain(run_id).decisions if d.subject == subject]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so\nAnswer: 10", "10"),
        ("Answer: 9\nno, wait\n**Answer:** 10.", "10"),
        ("The answer is 1,200 km.", "1,200 km"),
        ("#### 72", "72"),
        (r"thus \boxed{5}", "5"),
        ("it is ten", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_the_answer_stands_at_the_end_of_the_chain(text: str, found: str | None) -> None:
    assert final_answer(text) == found


def test_answers_agree_by_their_number_or_their_words() -> None:
    assert canonical_answer("$1,200.00") == canonical_answer("1200 dollars") == "1200"
    assert canonical_answer("The Blue one!") == canonical_answer("the blue one")
    assert vote(["9", None, "10", "10 apples"]) == (2, (0.25, 0.0, 0.5, 0.5))
    assert vote([None, "8", "7"])[0] == 1
    assert vote([None, None])[0] == 0


@pytest.mark.row("reason-cot", "mechanism")
def test_the_chain_is_kept_in_the_record_and_its_end_is_the_answer(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [[RIGHT]]) as h:
            state = await h.work(spec(planner=cot(shots=2)), GOAL)
            assert (state.status, state.answer) == ("answered", "10")
            assert [(e.label, e.text) for e in state.exchanges] == [("chain", RIGHT), ("answer", "10")]
            asked = h.backend.requests[0].messages or ()
            assert sum("Answer:" in m.content for m in asked if m.role == "assistant") == 2
            assert asked[-1].content == GOAL
            assert subjects(h, state.run_id, "chain") == ["10"]

    run(scenario())


def test_a_chain_without_an_end_is_closed_by_a_short_question(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["3 * 4 = 12, and then"], ["10"]]) as h:
            state = await h.work(spec(planner=cot(think_tokens=9, answer_tokens=5)), GOAL)
            assert (state.status, state.answer) == ("answered", "10")
            first, second = h.backend.requests
            assert (first.sampling.max_tokens, second.sampling.max_tokens) == (9, 5)
            assert [m.role for m in (second.messages or ())[-3:]] == ["user", "assistant", "user"]

    run(scenario())


def test_without_thought_the_answer_is_asked_for_at_once(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["10"]]) as h:
            state = await h.work(spec(planner=cot(think_tokens=0)), GOAL)
            assert (state.status, state.answer) == ("answered", "10")
            assert len(state.exchanges) == 1

    run(scenario())


@pytest.mark.row("reason-cot", "mechanism")
def test_of_several_chains_the_answer_of_most_is_taken(tmp_path: pathlib.Path) -> None:
    turn = several("Answer: 14", RIGHT, "no idea", "12 - 2\nAnswer: 10 apples", "Answer: 9")

    async def scenario() -> None:
        async with harness(tmp_path, [turn]) as h:
            state = await h.work(spec(planner=cot(samples=5)), GOAL)
            assert state.answer == "10"
            sampling = h.backend.requests[0].sampling
            assert (sampling.n, sampling.temperature) == (5, 0.7)
            explained = h.runtime.explain(state.run_id).decisions
            (taken,) = [d for d in explained if d.subject == "sample"]
            assert dict(taken.candidates) == {"0": 0.2, "1": 0.4, "2": 0.0, "3": 0.4, "4": 0.2}

    run(scenario())


@pytest.mark.row("reason-cot", "mechanism", claims=(2,))
@pytest.mark.parametrize(("tokens", "count"), [(2000, 5), (500, 2), (400, 1), (250, 0)])
def test_as_many_chains_are_drawn_as_the_budget_pays_for(
    tmp_path: pathlib.Path, tokens: int, count: int
) -> None:
    def turn(request: Request) -> Sequence[Item]:
        used = Usage(prompt_tokens=40, completion_tokens=60 * request.sampling.n)
        return [*several(*[RIGHT] * request.sampling.n), used]

    async def scenario() -> None:
        async with harness(tmp_path, [turn]) as h:
            agent = spec(planner=cot(samples=5, think_tokens=100), budget=Budget(tokens=tokens))
            state = await h.work(agent, GOAL)
            (asked,) = h.backend.requests
            drawn = asked.sampling.n if state.exchanges[0].label == "chain" else 0
            assert drawn == count
            assert state.totals.prompt_tokens + state.totals.completion_tokens <= tokens

    run(scenario())


def test_tools_are_withheld_with_the_reason_and_the_conversation_is_shown(tmp_path: pathlib.Path) -> None:
    @tool(effects="none")
    def look(what: str) -> str:
        """Looks."""
        return what

    async def scenario() -> None:
        async with harness(tmp_path, [[RIGHT]], [look]) as h:
            history = (Message(role="user", content="Hi"), Message(role="assistant", content="Hello"))
            state = await h.work(spec(tools=("look",), planner=cot()), GOAL, history=history)
            assert state.withheld == (("look", "planner cot only reasons"),)
            asked = h.backend.requests[0]
            assert asked.tools == ()
            assert [m.content for m in (asked.messages or ()) if m.role != "system"] == ["Hi", "Hello", GOAL]

    run(scenario())


MEASURED = {
    "cot:think_tokens=0": {"easy": [0.9, 40], "medium": [0.3, 40], "hard": [0.1, 40]},
    "cot": {"easy": [0.91, 200], "medium": [0.7, 250], "hard": [0.4, 300]},
    "cot:samples=5": {"easy": [0.91, 900], "medium": [0.71, 1000], "hard": [0.6, 1300]},
}
EASY, MEDIUM = "What is the capital of France?", GOAL
HARD = (
    "Each of 12 shops sells 3 times as many of 40 lamps as before, and 25 percent are left. If 7 more than "
    "half of 90 are returned every week, how many remain after 5 weeks in total?"
)


def flexible(**options: object) -> Choice:
    return Choice(name="flexible", options={"measured": MEASURED, **options})


def echo(request: Request) -> Sequence[Item]:
    return several(*[RIGHT] * request.sampling.n)


@pytest.mark.row("fut-flex-reasoning", "mechanism")
@pytest.mark.parametrize(
    ("goal", "tokens", "chosen", "why"),
    [
        (EASY, None, "cot:think_tokens=0", "the goal looks easy"),
        (MEDIUM, None, "cot", "the goal looks medium"),
        (HARD, None, "cot:samples=5", "the goal looks hard"),
        (HARD, 1200, "cot", "the goal looks hard; 1200 tokens are left"),
        (HARD, 290, "cot:think_tokens=0", "the goal looks hard; 290 tokens are left"),
    ],
)
def test_the_cheapest_planner_that_is_about_as_good_as_the_best_is_chosen(
    tmp_path: pathlib.Path, goal: str, tokens: int | None, chosen: str, why: str
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [echo], repeat=True) as h:
            state = await h.work(spec(planner=flexible(), budget=Budget(tokens=tokens)), goal)
            assert state.status == "answered"
            (decision,) = [d for d in h.runtime.explain(state.run_id).decisions if d.subject == "planner"]
            assert (decision.chosen, decision.constraint) == (chosen, why)
            assert [share for _, share in decision.candidates if share is None] == []

    run(scenario())


def test_the_rules_see_numbers_relations_and_parts() -> None:
    assert [difficulty_of(goal) for goal in (EASY, MEDIUM, HARD)] == ["easy", "medium", "hard"]


def test_the_model_may_judge_the_difficulty(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["hard"], echo]) as h:
            state = await h.work(spec(planner=flexible(judge="model")), EASY)
            assert h.backend.requests[0].format.value == ["easy", "medium", "hard"]
            assert state.exchanges[1].text == "cot:samples=5"
            assert subjects(h, state.run_id, "difficulty") == ["hard"]

    run(scenario())


@pytest.mark.row("fut-flex-reasoning", "mechanism")
def test_a_planner_that_gives_up_is_followed_by_another(tmp_path: pathlib.Path) -> None:
    turns: list[Turn] = [[""], [""], echo]

    async def scenario() -> None:
        async with harness(tmp_path, turns) as h:
            state = await h.work(spec(planner=flexible()), EASY)
            assert (state.status, state.answer) == ("answered", "10")
            assert [e.text for e in state.exchanges if e.label == "planner"] == ["cot:think_tokens=0", "cot"]

    run(scenario())


def looker() -> Tool:
    @tool(effects="none")
    def look(what: str) -> str:
        """Looks."""
        return f"the {what} is red"

    return look


def test_an_agent_with_tools_gets_a_planner_that_uses_them(tmp_path: pathlib.Path) -> None:
    turns: list[Turn] = [[call("look", what="lamp")], ["It is red."]]

    async def scenario() -> None:
        async with harness(tmp_path, turns, [looker()]) as h:
            planner = Choice(name="flexible", options={"among": ["cot", "react:max_plan=0"]})
            state = await h.work(spec(tools=("look",), planner=planner), "What colour has the lamp?")
            assert (state.status, state.answer) == ("answered", "It is red.")
            assert subjects(h, state.run_id, "planner") == ["react:max_plan=0"]

    run(scenario())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"among": []}, "among names no planner"),
        ({"among": ["flexible"]}, "among names 'flexible' itself"),
        ({"among": ["cot", "cot"]}, "names one twice"),
        ({"among": ["cott"], "measured": {}}, "cott"),
        ({"among": ["cot"]}, "is not in among: cot"),
        ({"slack": 2}, "slack"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(Exception, match=says):
        build("planner", flexible(**options))
    with pytest.raises(InvalidRequest, match="shots is 9"):
        build("planner", cot(shots=9))


STAGES = {
    "Think to yourself": "Ann suspects me. I am the traitor.",
    "Write what you would say": "I am loyal. As the traitor I would not say so.",
    "Put yourself in the place": "They would hear that I am the traitor.",
}


def recon(**options: object) -> Choice:
    return Choice(name="recon", options={"hides": ["traitor"], **options})


def speaker(refined: Sequence[str]) -> Turn:
    left = list(refined)

    def turn(request: Request) -> Sequence[Item]:
        asked = (request.messages or ())[-1].content
        stage = next((text for head, text in STAGES.items() if f"\n\n{head}" in asked), None)
        return [stage or left.pop(0)]

    return turn


@pytest.mark.row("plan-recon", "mechanism")
def test_a_speech_is_thought_drafted_seen_by_others_and_refined(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [speaker(["I am loyal. Trust me."])], repeat=True) as h:
            state = await h.work(spec(planner=recon()), "Speak to the table.")
            assert (state.status, state.answer) == ("answered", "I am loyal. Trust me.")
            labels = ["thought", "speech", "perception", "refined", "said"]
            assert [e.label for e in state.exchanges] == labels
            last = (h.backend.requests[-1].messages or ())[-1].content
            assert all(text in last for text in STAGES.values())

    run(scenario())


@pytest.mark.row("plan-recon", "mechanism")
@pytest.mark.parametrize(
    ("refined", "said"),
    [
        (["The Traitor speaks.", "I am loyal."], "I am loyal."),
        (["I, the traitor, am loyal. Trust me."] * 3, "Trust me."),
        (["I am the TRAITOR."] * 3, "I have nothing to say."),
    ],
)
def test_what_is_hidden_is_never_said(tmp_path: pathlib.Path, refined: list[str], said: str) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [speaker(refined)], repeat=True) as h:
            state = await h.work(spec(planner=recon(), max_steps=12), "Speak to the table.")
            assert (state.status, state.answer) == ("answered", said)

    run(scenario())


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6])
def test_nor_is_it_when_the_steps_run_out(tmp_path: pathlib.Path, steps: int) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [speaker(["I am the traitor."] * 9)], repeat=True) as h:
            state = await h.work(spec(planner=recon(), max_steps=steps), "Speak to the table.")
            assert "traitor" not in state.answer

    run(scenario())
