"""Planners `sequential` and `reverse-chain`, and the one-step agent: what is known when a call is made."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import pytest

from agent_support import Harness, harness, run, spec
from pentad.agent.planning.call_tree import CallNode
from pentad.agent.tools.functions import tool
from pentad.choice import Choice
from pentad.testing.backends import Item
from pentad.types import Request
from tool_suites import Facts, Goal

FACTS = Facts(seed=1)
GOAL = FACTS.dependent(6, seed=2)[5]
"""Three calls, each of which needs the one before."""


def asked(request: Request) -> str:
    return (request.messages or ())[-1].content


def says(*texts: str) -> list[object]:
    """The texts in turn; the last one also for whatever is asked after it."""
    left = list(texts)

    def turn(request: Request) -> Sequence[Item]:
        return [left.pop(0) if len(left) > 1 else left[0]]

    return [turn]


def seeker(name: str, **options: object) -> object:
    return spec(tools=("*",), planner=Choice(name=name, options=options), max_steps=14)


def forward(goal: Goal) -> list[str]:
    """The calls that a perfect sequential agent writes, then its answer."""
    product = next(p for p in FACTS.of_kind["product"] if p in goal.text)
    value, texts = product, []
    for name in goal.way:
        (parameter,) = next(t for t in FACTS.tools() if t.name == name).parameters["properties"]
        texts.append(json.dumps({"tool": name, "arguments": {parameter: value}}))
        value = FACTS.facts[name][value]
    return [*texts, json.dumps({"answer": f"There are {value}."})]


@pytest.mark.row("tool-tptu", "mechanism")
def test_the_sequential_agent_sees_each_result_before_it_is_asked_for_the_next_call(
    tmp_path: pathlib.Path,
) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, says(*forward(GOAL)), FACTS.tools(), repeat=True) as h:
            state = await h.work(seeker("sequential"), GOAL.text)  # type: ignore[arg-type]
            assert state.status == "answered"
            assert GOAL.reached(state.answer)
            assert [c.name for e in state.exchanges for c in e.calls] == list(GOAL.way)
            results = [r.content for e in state.exchanges for r in e.results.values()]
            told = [asked(request) for request in h.backend.requests]
            assert len(told) == 4, "one question per call and one for the answer"
            for number, text in enumerate(told):
                assert [result in text for result in results] == [n < number for n in range(3)]
            decided = [d.chosen for d in h.runtime.explain(state.run_id).decisions if d.subject == "next"]
            assert decided == [*GOAL.way, "answer"]

    run(scenario())


@pytest.mark.row("tool-tptu", "mechanism")
def test_the_one_step_agent_is_asked_once_for_all_calls_and_takes_fewer_tokens_where_none_needs_another(
    tmp_path: pathlib.Path,
) -> None:
    goal = FACTS.independent(1, seed=3)[0]
    keys = [key for keys in FACTS.of_kind.values() for key in keys if key in goal.text]
    calls = []
    for name in goal.way:
        (parameter,) = next(t for t in FACTS.tools() if t.name == name).parameters["properties"]
        key = next(k for k in keys if FACTS.facts[name].get(k) in goal.answers)
        calls.append({"tool": name, "arguments": {parameter: key}})
    answer = f"They are {', '.join(goal.answers)}."
    plan = json.dumps({"plan": [{**call, "after": []} for call in calls]})

    async def tokens(name: str, *texts: str, **options: object) -> tuple[int, int]:
        journal = f"{name}.db"
        async with harness(tmp_path, says(*texts), FACTS.tools(), repeat=True, journal=journal) as h:
            state = await h.work(seeker(name, **options), goal.text)  # type: ignore[arg-type]
            assert state.status == "answered", state.error
            assert goal.reached(state.answer)
            return state.totals.prompt_tokens + state.totals.completion_tokens, len(h.backend.requests)

    async def scenario() -> None:
        at_once, questions = await tokens("parallel", plan, answer, replans=0)
        written = [json.dumps(call) for call in calls]
        in_turn, more = await tokens("sequential", *written, json.dumps({"answer": answer}))
        assert (questions, more) == (2, 4)
        assert at_once < in_turn

    run(scenario())


@pytest.mark.row("tool-reverse-chain", "mechanism")
def test_the_last_call_is_chosen_first_and_calls_are_made_from_the_goal_on(tmp_path: pathlib.Path) -> None:
    product = next(p for p in FACTS.of_kind["product"] if p in GOAL.text)
    script = (
        "population_of",
        '{"city": {"from": "city_of"}}',
        '{"company": {"from": "maker_of"}}',
        json.dumps({"product": product}),
        f"There are {GOAL.answers[0]}.",
    )

    async def scenario() -> None:
        async with harness(tmp_path, says(*script), FACTS.tools(), repeat=True) as h:
            state = await h.work(seeker("reverse-chain"), GOAL.text)  # type: ignore[arg-type]
            assert state.status == "answered"
            assert GOAL.reached(state.answer)
            (made,) = [e for e in state.exchanges if e.calls]
            assert [c.name for c in made.calls] == ["maker_of", "city_of", "population_of"]
            assert made.calls[2].arguments == '{"city": "$2"}'
            assert [r.content for _, r in sorted(made.results.items())][-1] == GOAL.answers[0]
            told = [asked(request) for request in h.backend.requests]
            assert "city_of(company), whose result is the city of population_of" in told[2]
            assert "maker_of(product), whose result is the company of city_of" in told[3]
            assert len(told) == 5, "no question is asked while the calls are made"
            chosen = [d.chosen for d in h.runtime.explain(state.run_id).decisions if d.subject == "arguments"]
            assert chosen[0] == "population_of: city from city_of"

    run(scenario())


def test_a_value_that_the_goal_does_not_have_is_asked_for_again_once(tmp_path: pathlib.Path) -> None:
    script = ("population_of", '{"city": "Atlantis"}', '{"city": "Atlantis"}', "Nobody knows.")

    async def scenario() -> None:
        async with harness(tmp_path, says(*script), FACTS.tools(), repeat=True) as h:
            state = await h.work(seeker("reverse-chain"), GOAL.text)  # type: ignore[arg-type]
            again = asked(h.backend.requests[2])
            assert '"Atlantis" is not in the goal; give {"from": TOOL} for it' in again
            assert [c.arguments for e in state.exchanges for c in e.calls] == ['{"city": "Atlantis"}']
            assert state.status == "failed", "a run whose only call failed is no success"

    run(scenario())


def test_a_chain_that_would_be_too_deep_or_too_long_takes_values_only(tmp_path: pathlib.Path) -> None:
    async def forms(max_steps: int, **options: object) -> list[str]:
        script = ("population_of", '{"city": {"from": "city_of"}}', '{"company": {"from": "maker_of"}}', "{}")
        journal = f"{max_steps}{len(options)}.db"
        async with harness(tmp_path, says(*script), FACTS.tools(), repeat=True, journal=journal) as h:
            planner = Choice(name="reverse-chain", options=options)
            await h.work(spec(tools=("*",), planner=planner, max_steps=max_steps), GOAL.text)
            return [json.dumps(r.format.value) for r in h.backend.requests if r.format.kind == "json_schema"]

    async def scenario() -> None:
        deep = await forms(14, depth=2)
        assert "from" in deep[0]
        assert '"from"' not in deep[1], "the second call may not need a third"
        short = await forms(4)
        assert '"from"' not in short[0], "choice, arguments, calls and answer are all that four steps have"

    run(scenario())


def test_equal_calls_of_a_tree_are_made_once() -> None:
    tree = CallNode(tool="compare")
    tree.fill({"first": {"from": "price"}, "second": {"from": "price"}, "unit": "kg"})
    for _ in range(2):
        tree.unfilled[0].fill({"what": "tea"})
    plan = tree.plan("c")
    assert [(c.name, c.arguments) for c in plan.calls] == [
        ("price", '{"what": "tea"}'),
        ("compare", '{"unit": "kg", "first": "$1", "second": "$1"}'),
    ]
    assert plan.needs == ((), (0,))


def test_the_sequential_agent_may_answer_once_it_has_a_result_or_if_it_is_allowed_to(
    tmp_path: pathlib.Path,
) -> None:
    async def first_form(**options: object) -> str:
        journal = f"{len(options)}.db"
        async with harness(
            tmp_path, says('{"answer": "Seven."}'), FACTS.tools(), repeat=True, journal=journal
        ) as h:
            await h.work(seeker("sequential", **options), GOAL.text)  # type: ignore[arg-type]
            return json.dumps(h.backend.requests[0].format.value)

    async def scenario() -> None:
        assert '"answer"' not in await first_form()
        assert '"answer"' in await first_form(min_calls=0)

    run(scenario())


def test_the_sequential_agent_repeats_no_effect(tmp_path: pathlib.Path) -> None:
    paid: list[int] = []

    @tool
    def pay(euros: int) -> str:
        """Pays a bill."""
        paid.append(euros)
        return "paid"

    call = json.dumps({"tool": "pay", "arguments": {"euros": 5}})

    async def scenario(h: Harness) -> None:
        state = await h.work(spec(tools=("pay",), planner=Choice(name="sequential"), max_steps=12), "Pay 5.")
        assert paid == [5]
        assert any("is not called again" in e.detail for e in state.exchanges)

    async def whole() -> None:
        async with harness(tmp_path, says(call, call, call, "It is paid."), [pay], repeat=True) as h:
            await scenario(h)

    run(whole())
