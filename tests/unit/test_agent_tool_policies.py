"""Tool policies: what every registered one keeps to, and what a run shows and records of an offer."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from agent_support import call, harness, run, spec
from pentad import registry
from pentad.agent.exchange import Exchange
from pentad.agent.explain import explain
from pentad.agent.state import RunState
from pentad.agent.tool_events import ToolReturned, ToolsOffered
from pentad.agent.tools.base import Tool, ToolContext
from pentad.agent.tools.policy.base import Offer, Offerable, ToolPolicy
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest, UnknownName
from pentad.model.relevance import Relevance
from pentad.testing.agents import WordEmbedder
from pentad.types import ToolCall

WORDS = Relevance(None)


def tool(name: str, description: str = "") -> Tool:
    async def act(arguments: Any, context: ToolContext) -> str:
        return f"{name} done"

    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return Tool(name=name, description=description or name, parameters=schema, call=act, effects="none")


TOOLS = (
    tool("weather", "Tells the weather of a city"),
    tool("translate", "Translates a text into another language"),
    tool("book_table", "Books a table in a restaurant"),
    tool("stock_price", "Gives the price of a share at the stock exchange"),
    tool("send_mail", "Sends an electronic mail to a person"),
    tool("alarm", "Sets an alarm clock"),
    tool("convert", "Converts money between currencies"),
)


def encoder() -> Relevance:
    words = WordEmbedder(dimensions=512)

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return words.embed_counted(texts)[0]

    return Relevance(embed, encoder="words")


def seen(goal: str = "What is the weather?", tools: Sequence[Tool] = TOOLS, **fields: Any) -> Offerable:
    state = RunState(run_id="r", spec=spec(), goal=goal, tenant="t", **fields)
    return Offerable(state=state, tools=tuple(tools))


def used(name: str) -> Exchange:
    result = ToolReturned(step=1, index=0, call_id="c", tool=name, status="ok", content="x")
    return Exchange(
        step=1,
        purpose="act",
        calls=(ToolCall(id="c", name=name, arguments="{}"),),
        results={0: result},
        outcome="called_tools",
    )


@pytest.mark.parametrize("name", registry.known("tool_policy"))
class TestEveryToolPolicy:
    def offer(self, name: str, given: Offerable, relevance: Relevance = WORDS) -> Offer:
        policy: ToolPolicy = build("tool_policy", Choice(name=name))
        return run(policy.offer(given, relevance))

    @pytest.mark.parametrize("relevance", [WORDS, encoder()], ids=["words", "encoder"])
    def test_offers_some_of_the_tools_each_once_and_the_same_each_time(
        self, name: str, relevance: Relevance
    ) -> None:
        for given in (seen(), seen(goal=""), seen(tools=TOOLS[:1]), seen(goal="天気はどうですか")):
            offer = self.offer(name, given, relevance)
            assert len(set(offer.tools)) == len(offer.tools)
            assert set(offer.tools) <= {tool.name for tool in given.tools}
            assert offer.tools
            assert offer == self.offer(name, given, relevance)

    def test_no_tools_are_no_offer(self, name: str) -> None:
        assert self.offer(name, seen(tools=())).tools == ()

    def test_what_is_withheld_has_a_reason_and_scores_are_of_given_tools(self, name: str) -> None:
        given = seen()
        offer = self.offer(name, given)
        assert offer.why or len(offer.tools) == len(TOOLS)
        assert all(0 <= score <= 1 for score in offer.scores.values())
        decision = offer.decision(name, given.tools, 1.0)
        assert decision.policy == name
        assert [each for each, _ in decision.candidates] == [tool.name for tool in TOOLS]

    def test_a_tool_that_was_used_or_that_the_plan_names_stays_on_offer(self, name: str) -> None:
        given = seen(exchanges=(used("alarm"),), plan=(("send_mail", "tell Ada"), ("", "think")))
        assert {"alarm", "send_mail"} <= set(self.offer(name, given).tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """A policy that offers only the second tool."""

    name = "second"

    async def offer(self, given: Offerable, relevance: Relevance) -> Offer:
        return Offer(tools=(given.tools[1].name,), why="it is not the second", scores={"alarm": 0.5})


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = {**registry.TABLE["tool_policy"], "second": f"{__name__}:Second"}
    monkeypatch.setitem(registry._TABLE, "tool_policy", policies)


@pytest.mark.usefixtures("second")
class TestInARun:
    AGENT = spec(tools=("weather", "alarm", "convert"), tool_policy=Choice(name="second"))

    def test_the_model_sees_what_the_policy_offers_and_the_record_says_what_not(
        self, tmp_path: pathlib.Path
    ) -> None:
        async def check() -> None:
            async with harness(tmp_path, [[call("alarm")], ["done"]], TOOLS) as h:
                state = await h.work(self.AGENT, "Wake me")
                assert state.status == "answered"
                assert [[t.name for t in r.tools] for r in h.backend.requests[:1]] == [["alarm"]]
                (event,) = [r.event for r in h.records(state.run_id) if isinstance(r.event, ToolsOffered)]
                assert event.tools == ("alarm",)
                assert event.withheld == (
                    ("weather", "it is not the second"),
                    ("convert", "it is not the second"),
                )
                (decision,) = [
                    d for d in explain(h.records(state.run_id)).decisions if d.subject == "tools offered"
                ]
                assert (decision.policy, decision.chosen) == ("second", "alarm")
                assert decision.candidates == (("weather", None), ("alarm", 0.5), ("convert", None))

        run(check())

    def test_denied_tools_are_no_candidates(self, tmp_path: pathlib.Path) -> None:
        async def check() -> None:
            async with harness(tmp_path, [["done"]], TOOLS) as h:
                await h.work(replace(self.AGENT, deny=("weather",)), "Wake me")
                assert [t.name for t in h.backend.requests[0].tools] == ["convert"]

        run(check())


def test_offering_everything_leaves_no_trace(tmp_path: pathlib.Path) -> None:
    async def check() -> None:
        async with harness(tmp_path, [["done"]], TOOLS) as h:
            state = await h.work(spec(tools=("weather", "alarm")), "Wake me")
            assert [t.name for t in h.backend.requests[0].tools] == ["weather", "alarm"]
            assert not any(isinstance(r.event, ToolsOffered) for r in h.records(state.run_id))

    run(check())


def test_a_policy_that_is_not_there_is_refused_before_the_run(tmp_path: pathlib.Path) -> None:
    async def check() -> None:
        async with harness(tmp_path, [["done"]]) as h:
            with pytest.raises(UnknownName, match="did you mean 'all'"):
                await h.runtime.start(spec(tool_policy=Choice(name="al")), "x")
            with pytest.raises(InvalidRequest, match="no option 'k'"):
                await h.runtime.start(spec(tool_policy=Choice(name="all", options={"k": 1})), "x")

    run(check())
