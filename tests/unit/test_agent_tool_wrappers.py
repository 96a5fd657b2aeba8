"""Tool wrappers: what every registered one keeps to; results that are dated and kept; students; parcels."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent_support import call, context, harness, run, spec
from pentad.agent.events import Record
from pentad.agent.tool_events import ToolReturned
from pentad.agent.tools.base import Dated, Sourced, Tool, ToolContext, ToolServices
from pentad.agent.tools.builtin import classify, current
from pentad.agent.tools.functions import tool
from pentad.agent.tools.invocation import as_text
from pentad.agent.tools.invocation import call as invoke
from pentad.agent.tools.wrapping.base import WrapperServices, Wrapping
from pentad.agent.tools.wrapping.classifier import Classifier
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest, ToolFailed
from pentad.registry import known
from pentad.testing.agents import scripted_models
from pentad.testing.backends import Item
from pentad.types import Request

MODELS = scripted_models([])[0]


def opened(name: str, **options: object) -> Wrapping:
    made: Wrapping = build("tool_wrapper", Choice(name=name, options=options)).open(
        WrapperServices(models=MODELS)
    )
    return made


class Clock:
    """Wall time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Counted:
    """A tool that counts its calls."""

    def __init__(self, effects: str = "none", expires_in_s: float | None = None) -> None:
        self.calls = 0

        async def ask(arguments: Mapping[str, Any], given: ToolContext) -> Any:
            self.calls += 1
            text = f"{arguments.get('what')} is {self.calls}"
            if expires_in_s is None:
                return text
            return Dated(content=text, as_of_s=given.wall(), expires_s=given.wall() + expires_in_s)

        self.tool = Tool(
            name="price",
            description="Says a price.",
            parameters={"type": "object", "properties": {"what": {"type": "string"}}},
            call=ask,
            effects=effects,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("name", known("tool_wrapper"))
class TestEveryWrapper:
    def options(self, name: str) -> dict[str, object]:
        return {} if name == "plain" else {"tools": ["*"]}

    def test_the_model_sees_the_same_tool(self, name: str) -> None:
        own = Counted().tool
        wrapped = opened(name, **self.options(name)).wrap(own)
        assert replace(wrapped, call=own.call) == own

    def test_a_first_call_says_what_the_tool_says_and_failures_come_through(self, name: str) -> None:
        @tool(effects="none")
        def broken(what: str) -> str:
            """Fails."""
            raise ToolFailed(f"no {what}")

        async def scenario() -> None:
            wrapping = opened(name, **self.options(name))
            outcome = await invoke(wrapping.wrap(Counted().tool), {"what": "tea"}, context())
            assert outcome.status == "ok"
            assert outcome.content.startswith("tea is 1")
            assert outcome.source == "", "it came of the call"
            failed = await invoke(wrapping.wrap(broken), {"what": "tea"}, context())
            assert (failed.status, failed.content) == ("failed", "no tea")

        run(scenario())

    @pytest.mark.parametrize("effects", ["keyed", "unkeyed"])
    def test_every_call_of_a_tool_with_effects_is_made(self, name: str, effects: str) -> None:
        counted = Counted(effects)

        async def scenario() -> None:
            wrapped = opened(name, **self.options(name)).wrap(counted.tool)
            for _ in range(3):
                await invoke(wrapped, {"what": "tea"}, context())

        run(scenario())
        assert counted.calls == 3

    def test_one_tenant_sees_nothing_of_another(self, name: str) -> None:
        counted = Counted()

        async def scenario() -> None:
            wrapped = opened(name, **self.options(name)).wrap(counted.tool)
            for tenant in ("a", "b"):
                outcome = await invoke(wrapped, {"what": "tea"}, context(tenant=tenant))
                assert outcome.source == ""

        run(scenario())
        assert counted.calls == 2

    def test_a_tool_that_is_not_named_is_the_tool_itself(self, name: str) -> None:
        own = Counted().tool
        options = {} if name == "plain" else {"tools": ["other"]}
        assert opened(name, **options).wrap(own) is own

    def test_a_closed_one_can_be_closed_again(self, name: str) -> None:
        wrapping = opened(name)
        wrapping.close()
        wrapping.close()


@pytest.mark.row("tool-live", "mechanism", claims=(2,))
def test_what_is_kept_is_served_until_the_instant_it_expires_and_never_after() -> None:
    counted, wall = Counted(), Clock()

    async def scenario() -> None:
        wrapped = opened("fresh", ttl_s=60).wrap(counted.tool)

        async def ask() -> tuple[str, str]:
            outcome = await invoke(wrapped, {"what": "tea"}, context(wall=wall))
            return outcome.content, outcome.source

        began_s = wall.now_s
        text, _ = await ask()
        assert text == "tea is 1\n[as of 2027-01-15 08:00:00 UTC, valid until 2027-01-15 08:01:00 UTC]"
        wall.now_s = began_s + 59.9
        assert await ask() == (text, "kept, 59.9 s old")
        wall.now_s = began_s + 60
        assert (await ask())[0].startswith("tea is 2"), "at the instant it is no longer valid"
        wall.now_s = began_s
        assert (await ask())[0].startswith("tea is 3"), "a clock that was turned back trusts no later date"

    run(scenario())
    assert counted.calls == 3


@pytest.mark.row("tool-live", "mechanism", claims=(2,))
def test_a_tool_that_says_that_its_value_holds_for_less_is_believed() -> None:
    short, over, wall = Counted(expires_in_s=5), Counted(expires_in_s=0), Clock()

    async def scenario() -> None:
        wrapping = opened("fresh", ttl_s=60)
        for made, pause_s in ((short, 5.0), (over, 0.0)):
            wrapped = wrapping.wrap(replace(made.tool, name=f"price{pause_s}"))
            await invoke(wrapped, {"what": "tea"}, context(wall=wall))
            wall.now_s += pause_s
            outcome = await invoke(wrapped, {"what": "tea"}, context(wall=wall))
            assert (outcome.source, made.calls) == ("", 2)

    run(scenario())


def test_the_journal_says_that_a_result_was_kept_and_the_record_says_why(tmp_path: pathlib.Path) -> None:
    counted = Counted()
    agent = spec(tools=("price",), wrap=Choice(name="fresh"))
    turns = [[call("price", what="tea")], ["It is 1."]] * 2

    def returned(records: Sequence[Record]) -> ToolReturned:
        (found,) = [r.event for r in records if isinstance(r.event, ToolReturned)]
        return found

    async def scenario() -> None:
        async with harness(tmp_path, turns, [counted.tool]) as h:
            first, second = await h.work(agent, "tea?"), await h.work(agent, "tea?")
            assert counted.calls == 1
            kept = returned(h.records(second.run_id))
            assert returned(h.records(first.run_id)).source == ""
            assert kept.source.startswith("kept, ")
            assert kept.content == returned(h.records(first.run_id)).content
            assert [d.chosen for d in h.runtime.explain(second.run_id).decisions if d.policy == "fresh"] == [
                "kept"
            ]

    run(scenario())


def live(path: pathlib.Path, entries: object) -> Tool:
    path.write_text(json.dumps(entries), encoding="utf-8")
    return current.build(ToolServices(models=MODELS), source=str(path))


@pytest.mark.row("tool-live", "mechanism", claims=(2,))
def test_the_tool_for_current_values_dates_them_and_gives_none_that_has_expired(
    tmp_path: pathlib.Path,
) -> None:
    wall = Clock()
    made = live(
        tmp_path / "now.json",
        {
            "price of tea": {"value": "3 euros", "as_of": "2027-01-15 07:30", "expires": "2027-01-15 08:30"},
            "weather in Oslo": {"value": "snow", "expires": "2027-01-15T09:00:00+02:00"},
        },
    )

    async def scenario() -> None:
        tea = await invoke(made, {"topic": "tea price"}, context(wall=wall))
        assert tea.content == (
            "price of tea: 3 euros\n[as of 2027-01-15 07:30:00 UTC, valid until 2027-01-15 08:30:00 UTC]"
        )
        old = await invoke(made, {"topic": "weather in Oslo"}, context(wall=wall))
        assert old.status == "failed"
        assert "no longer valid" in old.content
        assert "snow" not in old.content
        nothing = await invoke(made, {"topic": "zebras"}, context(wall=wall))
        assert nothing.content == "nothing is known of 'zebras'; topics: price of tea, weather in Oslo"

    run(scenario())
    for source in ("", "https://example.org/now"):
        with pytest.raises(InvalidRequest, match="a JSON file, or a URL with"):
            current.build(ToolServices(models=MODELS), source=source)


WORDS = {
    "fruit": ("apple", "pear", "plum", "cherry", "quince", "fig"),
    "tool": ("saw", "drill", "hammer", "plane", "chisel", "file"),
}


def sorter(asked: list[str]) -> Tool:
    @tool(effects="none")
    def classify(text: str) -> str:
        """Says what a thing is."""
        asked.append(text)
        return next(kind for kind, words in WORDS.items() if text.split()[-1] in words)

    return classify


def things(count: int) -> list[str]:
    both = [*WORDS["fruit"], *WORDS["tool"]]
    return [f"item number {i} is a {both[(i * 7) % 12]}" for i in range(count)]


@pytest.mark.row("tool-neural-cache", "mechanism")
def test_a_student_takes_the_calls_that_it_is_sure_of_and_the_journal_can_say_so() -> None:
    asked: list[str] = []

    async def scenario() -> None:
        wrapped = opened("student", after=40, check_every=10).wrap(sorter(asked))
        by_student = wrong = 0
        for text in things(300):
            outcome = await invoke(wrapped, {"text": text}, context())
            by_student += bool(outcome.source)
            wrong += text.split()[-1] not in WORDS[outcome.content]
            if outcome.source:
                (decision,) = outcome.decisions
                assert outcome.source.startswith("student of ")
                assert (decision.policy, decision.chosen) == ("student", "student")
                assert decision.candidates[0][0] == outcome.content
        assert wrong == 0
        assert len(asked) + by_student == 300
        assert by_student > 150
        assert asked[:40] == things(300)[:40], "the first calls all go to the tool"

    run(scenario())


@pytest.mark.row("tool-neural-cache", "mechanism")
def test_a_student_whose_checks_fail_answers_nothing_until_it_has_learned_anew() -> None:
    asked: list[str] = []
    turned = [False]
    inner = sorter(asked)

    async def call_turned(arguments: Mapping[str, Any], given: ToolContext) -> Any:
        said = as_text(await inner.call(arguments, given))
        return said if not turned[0] else {"fruit": "tool", "tool": "fruit"}[said]

    async def scenario() -> None:
        wrapped = opened("student", after=40, check_every=2).wrap(replace(inner, call=call_turned))
        for text in things(120):
            await invoke(wrapped, {"text": text}, context())
        turned[0] = True
        sources = [(await invoke(wrapped, {"text": text}, context())).source for text in things(240)[120:]]
        first = next(place for place, source in enumerate(sources) if not source)
        assert first <= 2
        assert sum(map(bool, sources[:12])) <= 6, "once a check fails, calls go to the tool"

    run(scenario())


def test_what_a_student_learned_is_a_numbered_file_from_which_it_goes_on(tmp_path: pathlib.Path) -> None:
    file, asked = tmp_path / "learned" / "student.json", list[str]()

    async def scenario() -> None:
        first = opened("student", after=40, check_every=0, file=str(file))
        wrapped = first.wrap(sorter(asked))
        for text in things(80):
            await invoke(wrapped, {"text": text}, context())
        first.close()
        assert json.loads(file.read_text("utf-8"))["version"] == 1
        before = len(asked)
        again = opened("student", after=40, check_every=0, file=str(file))
        outcome = await invoke(again.wrap(sorter(asked)), {"text": things(80)[5]}, context())
        assert outcome.source.startswith("student of ")
        assert len(asked) == before
        again.close()
        assert json.loads(file.read_text("utf-8"))["version"] == 2

    run(scenario())
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"wrap\.options\.file"):
        opened("student", file=str(file))


def test_equal_examples_make_equal_classifiers() -> None:
    one, two = Classifier(), Classifier()
    for text in things(30):
        for each in (one, two):
            each.learn(text, "fruit" if text.split()[-1] in WORDS["fruit"] else "tool")
    assert one.probabilities("a pear") == two.probabilities("a pear")
    assert Classifier.read(one.written()).probabilities("a pear") == one.probabilities("a pear")


def asker() -> Tool:
    @tool(effects="none", name="question_answering")
    async def answers(question: str, given: ToolContext) -> str:
        """Answers a question."""
        assert given.ask is not None
        return await given.ask("Answer in a word.", question, 8)

    return answers


@pytest.mark.row("tool-cliqueparcel", "mechanism")
def test_questions_of_one_run_at_the_same_time_share_a_prompt_and_each_call_gets_its_part() -> None:
    prompts: list[tuple[str, str, int]] = []

    async def ask(system: str, text: str, max_tokens: int) -> str:
        prompts.append((system, text, max_tokens))
        if not text.startswith("["):
            return f"alone: {text}"
        numbered = [line.split("] ", 1) for line in text.split("\n\n")]
        return "\n".join(f"{mark}] re {rest}" for mark, rest in numbered if "lost" not in rest)

    async def scenario() -> None:
        wrapped = opened("parcel", most=4).wrap(asker())

        async def outcome(question: str, run_id: str = "r") -> Any:
            return await invoke(wrapped, {"question": question}, context(ask=ask, run_id=run_id))

        questions = ["Who?", "What is lost?", "Where was that?"]
        found = await asyncio.gather(*map(outcome, questions), outcome("Who?", "other run"))
        assert [each.content for each in found] == [
            "re Who?",
            "alone: What is lost?",
            "re Where was that?",
            "alone: Who?",
        ]
        assert [each.source for each in found] == [
            "one prompt for 3 questions",
            "",
            "one prompt for 3 questions",
            "",
        ]
        assert len(prompts) == 3, "one for three, one for the lost part, one of another run"
        assert max(tokens for _, _, tokens in prompts) == 3 * 14
        many = await asyncio.gather(*(outcome(f"Number {i}?") for i in range(10)))
        assert [each.content for each in many] == [f"re Number {i}?" for i in range(10)]
        assert len(prompts) == 3 + 3, "ten are four, four and two"

    run(scenario())


@pytest.mark.row("tool-cliqueparcel", "mechanism")
def test_calls_of_a_turn_take_one_model_call_and_its_tokens_are_the_runs(tmp_path: pathlib.Path) -> None:
    calls = [call("question_answering", f"c{i}", question=f"Question {i}?") for i in range(5)]

    def turn(request: Request) -> Sequence[Item]:
        text = (request.messages or ())[-1].content
        if text.startswith("[1]"):
            return ["\n".join(f"[{i + 1}] answer {i}" for i in range(5))]
        return ["alone"]

    async def scenario() -> None:
        agent = spec(tools=("question_answering",), wrap=Choice(name="parcel"))
        async with harness(tmp_path, [calls, turn, ["All answered."]], [asker()]) as h:
            state = await h.work(agent, "five questions")
            assert len(h.backend.requests) == 3
            results = [r.content for e in state.exchanges for _, r in sorted(e.results.items())]
            assert results == [f"answer {i}" for i in range(5)]
            assert state.ledger.held == {}

    run(scenario())


def test_a_failed_joint_question_fails_each_of_its_calls_with_its_own_words() -> None:
    async def ask(system: str, text: str, max_tokens: int) -> str:
        raise ToolFailed("no budget is left")

    async def scenario() -> None:
        wrapped = opened("parcel").wrap(asker())
        given = context(ask=ask)
        found = await asyncio.gather(*(invoke(wrapped, {"question": q}, given) for q in ("Who?", "What?")))
        assert [(each.status, each.content) for each in found] == [("failed", "no budget is left")] * 2

    run(scenario())


def test_classify_names_a_label_or_says_what_the_model_said() -> None:
    made = classify.build(ToolServices(models=MODELS), labels=("spam", "not spam"))
    said = ["It is not spam.", "Ham"]

    async def ask(system: str, text: str, max_tokens: int) -> str:
        assert "spam, not spam" in system
        return said.pop(0)

    async def scenario() -> None:
        outcome = await invoke(made, {"text": "Hello"}, context(ask=ask))
        assert outcome.content == "not spam"
        outcome = await invoke(made, {"text": "Hello"}, context(ask=ask))
        assert outcome.content == "the model named none of spam, not spam: 'Ham'"

    run(scenario())
    with pytest.raises(InvalidRequest, match="two or more"):
        classify.build(ToolServices(models=MODELS), labels=("one",))


def test_a_sourced_result_that_is_dated_keeps_its_date() -> None:
    async def scenario() -> None:
        inner = Dated(content="snow", as_of_s=1_800_000_000.0)

        async def say(arguments: Mapping[str, Any], _: ToolContext) -> Any:
            return Sourced(content=inner, source="kept")

        outcome = await invoke(replace(Counted().tool, call=say), {}, context())
        assert (outcome.content, outcome.source) == ("snow\n[as of 2027-01-15 08:00:00 UTC]", "kept")

    run(scenario())
