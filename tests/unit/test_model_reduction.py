"""Token reducers: what every registered one keeps to, what `extractive` keeps, what a run records."""

from __future__ import annotations

import asyncio
import math
import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_agent_tool_policies import encoder

from agent_support import call, harness, run, spec
from pentad import registry
from pentad.agent.explain import explain
from pentad.agent.tool_events import ResultReduced, ToolReturned
from pentad.agent.tools.base import Tool, ToolContext
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest, UnknownName
from pentad.model.reduction.base import Reducible, Reduction, TokenReducer
from pentad.model.reduction.extractive import Extractive, sentences
from pentad.model.relevance import Relevance

WORDS = Relevance(None)
FILLER = " ".join(f"Note {i} is about gardens and their walls." for i in range(60))
DOCUMENT = f"Harbour report. {FILLER} The lighthouse was built in 1843. {FILLER}"


def tokens(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)


def reducible(
    text: str, goal: str = "When was the lighthouse built?", relevance: Relevance = WORDS
) -> Reducible:
    return Reducible(text=text, goal=goal, count=tokens, relevance=relevance)


def reduced(reducer: TokenReducer, given: Reducible) -> Reduction:
    return run(reducer.reduce(given))


@pytest.mark.parametrize("name", registry.known("reducer"))
class TestEveryReducer:
    def reducer(self, name: str) -> TokenReducer:
        return build("reducer", Choice(name=name))  # type: ignore[no-any-return]

    def check(self, reducer: TokenReducer, text: str, made: Reduction) -> None:
        assert made.before_tokens == tokens(text)
        assert made.after_tokens == tokens(made.text) <= made.before_tokens
        if reducer.max_tokens is not None:
            assert made.after_tokens <= reducer.max_tokens
        if reducer.exactness == "lossless":
            assert made.text == text
        at = 0
        for begin, end in made.kept:
            assert 0 <= begin < end <= len(text)
            at = made.text.index(text[begin:end], at) + end - begin

    @pytest.mark.parametrize("relevance", [WORDS, encoder()], ids=["words", "encoder"])
    def test_keeps_parts_of_the_text_in_order_within_its_limit(self, name: str, relevance: Relevance) -> None:
        reducer, asked = self.reducer(name), reducible(DOCUMENT, relevance=relevance)
        made = reduced(reducer, asked)
        self.check(reducer, DOCUMENT, made)
        assert made.kept
        assert reduced(self.reducer(name), asked) == made, "equal input, equal reduction"

    @settings(max_examples=40)
    @given(st.text(max_size=3000) | st.text(alphabet="ab \n.", min_size=1500, max_size=4000))
    def test_takes_any_text(self, name: str, text: str) -> None:
        reducer = self.reducer(name)
        self.check(reducer, text, reduced(reducer, reducible(text)))

    @pytest.mark.parametrize("text", ["", "Short.", "第一文。第二文。", "x" * 60])
    def test_a_short_text_stays_as_it_is(self, name: str, text: str) -> None:
        made = reduced(self.reducer(name), reducible(text))
        assert made.text == text
        assert made.before_tokens == made.after_tokens

    def test_a_decision_has_both_sizes_and_the_best_parts(self, name: str) -> None:
        made = reduced(self.reducer(name), reducible(DOCUMENT))
        decision = made.decision(name, "agent", 1.0)
        assert decision.chosen == f"{made.after_tokens} of {made.before_tokens} tokens"
        assert decision.policy == name
        scores = [score for _, score in decision.candidates]
        assert scores == sorted(scores, key=lambda score: -(score or 0.0))
        assert len(scores) <= 24


class TestExtractive:
    @pytest.mark.parametrize("relevance", [WORDS, encoder()], ids=["words", "encoder"])
    def test_what_the_goal_asks_for_stays_and_so_does_the_beginning(self, relevance: Relevance) -> None:
        made = reduced(Extractive(max_tokens=48), reducible(DOCUMENT, relevance=relevance))
        assert made.text.startswith("Harbour report.")
        assert "The lighthouse was built in 1843." in made.text
        assert made.text.count("[...]") >= 2
        assert made.text.endswith(f"[reduced from {made.before_tokens} tokens]")

    def test_without_a_first_sentence_the_nearest_comes_alone(self) -> None:
        made = reduced(Extractive(max_tokens=24, keep_first=0), reducible(DOCUMENT))
        assert made.text.startswith("[...] The lighthouse was built in 1843. [...]")

    def test_where_nothing_has_to_do_with_the_goal_the_beginning_stays(self) -> None:
        made = reduced(Extractive(max_tokens=64), reducible(DOCUMENT, goal="?"))
        assert made.text.startswith("Harbour report. Note 0 is about gardens")

    def test_neighbours_keep_what_lies_between_them(self) -> None:
        text = f"Start here.\nThe lighthouse stands.\n\nThe lighthouse was built late. {FILLER}"
        made = reduced(Extractive(max_tokens=64), reducible(text))
        assert "Start here.\nThe lighthouse stands.\n\nThe lighthouse was built late." in made.text

    def test_tables_and_scripts_without_spaces_have_parts_too(self) -> None:
        table = "\n".join(f"row{i}\t{i * 7}\tplain" for i in range(300)) + "\nlighthouse\t1843\tbuilt"
        assert "lighthouse\t1843\tbuilt" in reduced(Extractive(max_tokens=40), reducible(table)).text
        one_line = " ".join(f"cell{i}" for i in range(900)) + " lighthouse built 1843"
        assert "lighthouse built 1843" in reduced(Extractive(max_tokens=120), reducible(one_line)).text
        chinese = "花园很大。" * 80 + "灯塔建于一八四三年。" + "花园很大。" * 80
        made = reduced(Extractive(max_tokens=64), reducible(chinese, goal="灯塔是什么时候建的？"))
        assert "灯塔建于一八四三年。" in made.text

    @given(st.text(max_size=400))
    def test_sentences_are_the_text_but_for_space(self, text: str) -> None:
        spans = list(sentences(text))
        assert all(begin < end for begin, end in spans)
        assert spans == sorted(spans)
        kept = "".join(text[begin:end] for begin, end in spans)
        assert "".join(kept.split()) == "".join(text.split())

    @pytest.mark.parametrize(("option", "value"), [("max_tokens", 15), ("keep_first", -1)])
    def test_options_are_checked(self, option: str, value: int) -> None:
        with pytest.raises(InvalidRequest, match=f"{option} is {value}"):
            build("reducer", Choice(name="extractive", options={option: value}))


def library(text: str = DOCUMENT) -> Tool:
    async def read(arguments: Any, context: ToolContext) -> str:
        return text

    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return Tool(name="read", description="Reads.", parameters=schema, call=read, effects="none")


AGENT = spec(tools=("read",), reduce=Choice(name="extractive", options={"max_tokens": 32}))
GOAL = "When was the lighthouse built? " + FILLER


class TestInARun:
    def test_the_model_reads_less_and_the_record_has_it_all(self, tmp_path: pathlib.Path) -> None:
        async def scenario() -> None:
            async with harness(tmp_path, [[call("read")], ["In 1843."]], [library()]) as h:
                state = await h.work(AGENT, GOAL)
                records = h.records(state.run_id)
                (event,) = [r.event for r in records if isinstance(r.event, ResultReduced)]
                (result,) = [r.event for r in records if isinstance(r.event, ToolReturned)]
                assert result.content == DOCUMENT, "the journal has the whole result"
                assert event.after_tokens <= 32 < event.before_tokens
                assert "built in 1843" in event.content
                asked = h.backend.requests[1].messages or ()
                (shown,) = [m.content for m in asked if m.role == "tool"]
                assert shown == event.content
                assert any(GOAL in m.content for m in asked), "the user's own words stay whole"
                (decision,) = [d for d in explain(records).decisions if d.subject == "reduced text"]
                assert decision.chosen == f"{event.after_tokens} of {event.before_tokens} tokens"
                assert state.exchanges[0].results[0].content == event.content

        run(scenario())

    def test_it_is_reduced_once_also_when_the_run_was_taken_up_between(self, tmp_path: pathlib.Path) -> None:
        async def scenario() -> None:
            never = asyncio.Event()
            async with harness(tmp_path, [[call("read")], [never]], [library()]) as h:
                run_id = await h.runtime.start(AGENT, GOAL)
                async for record in h.runtime.events(run_id):
                    if record.kind == "model_asked" and record.event.step == 2:  # type: ignore[union-attr]
                        break
            async with harness(tmp_path, [[call("read", "c2")], ["In 1843."]], [library()]) as h:
                await h.runtime.resume(run_id)
                assert (await h.runtime.wait(run_id)).status == "answered"
                events = [r.event for r in h.records(run_id) if isinstance(r.event, ResultReduced)]
                assert [(e.step, e.index) for e in events] == [(1, 0), (2, 0)]

        run(scenario())

    @pytest.mark.parametrize(
        ("agent", "text"),
        [(spec(tools=("read",)), DOCUMENT), (AGENT, "The lighthouse was built in 1843.")],
        ids=["none", "short"],
    )
    def test_without_need_nothing_is_reduced(self, tmp_path: pathlib.Path, agent: Any, text: str) -> None:
        async def scenario() -> None:
            async with harness(tmp_path, [[call("read")], ["In 1843."]], [library(text)]) as h:
                state = await h.work(agent, "When was the lighthouse built?")
                assert not any(isinstance(r.event, ResultReduced) for r in h.records(state.run_id))
                assert state.exchanges[0].results[0].content == text

        run(scenario())

    def test_a_reducer_that_is_not_there_is_refused_before_the_run(self, tmp_path: pathlib.Path) -> None:
        async def scenario() -> None:
            async with harness(tmp_path, [["done"]]) as h:
                with pytest.raises(UnknownName, match="did you mean 'extractive'"):
                    await h.runtime.start(spec(reduce=Choice(name="extractiv")), "x")

        run(scenario())
