"""The tool policy `retrieve`: the nearest tools are on offer, and so is what is in use."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Sequence

import pytest
from test_agent_tool_policies import TOOLS, encoder, seen, tool, used

from agent_support import call, harness, run, spec
from pentad.agent.state import RunState
from pentad.agent.tool_events import ToolsOffered
from pentad.agent.tools.base import Example, Tool
from pentad.agent.tools.policy.base import Offer, Offerable
from pentad.agent.tools.policy.retrieve import Retrieve, cues, tool_text
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.model.relevance import Relevance

WORDS = Relevance(None)


def offer(policy: Retrieve, given: Offerable, relevance: Relevance = WORDS) -> Offer:
    return run(policy.offer(given, relevance))


@pytest.mark.parametrize("relevance", [WORDS, encoder()], ids=["words", "encoder"])
@pytest.mark.parametrize(
    ("goal", "name"),
    [
        ("Tell me the weather of the city Kyiv", "weather"),
        ("Please book a table for two in a restaurant", "book_table"),
        ("How is the price of the share today?", "stock_price"),
    ],
)
@pytest.mark.row("tool-select", "mechanism")
def test_the_tool_that_the_goal_is_about_comes_first(relevance: Relevance, goal: str, name: str) -> None:
    found = offer(Retrieve(k=2), seen(goal=goal), relevance)
    assert found.tools[0] == name
    assert len(found.tools) == 2
    assert max(found.scores, key=found.scores.__getitem__) == name
    assert relevance.method in found.why


def test_each_part_of_a_goal_finds_its_tool() -> None:
    goal = "Tell me the weather of the city, and send a mail to a person."
    assert set(offer(Retrieve(k=2), seen(goal=goal)).tools) == {"weather", "send_mail"}
    state = RunState(run_id="r", spec=spec(), goal=goal, tenant="t", plan=(("", "sleep well"),))
    assert cues(state) == [goal, "Tell me the weather of the city", "send a mail to a person", "sleep well"]


def test_what_was_used_what_the_plan_names_and_what_must_stay_is_on_offer_besides() -> None:
    given = seen(exchanges=(used("alarm"),), plan=(("convert", "?"),))
    found = offer(Retrieve(k=1, always=("send_*",)), given)
    assert set(found.tools) == {"weather", "alarm", "convert", "send_mail"}
    assert found.tools[0] == "weather"


def test_few_tools_are_offered_as_they_are_at_no_cost() -> None:
    async def none(texts: Sequence[str]) -> list[list[float]]:
        raise AssertionError(f"{texts} were embedded")

    found = offer(Retrieve(k=7), seen(), Relevance(none))
    assert found == Offer(tools=tuple(tool.name for tool in TOOLS))


def test_a_tool_is_found_by_all_that_is_said_of_it() -> None:
    schema = {"type": "object", "properties": {"departure_city": {"type": "string"}}}
    made = Tool(
        name="find__flights",
        description="Looks up flights.",
        parameters=schema,
        call=tool("x").call,
        examples=(Example(task="How do I fly to Oslo?", arguments={}),),
    )
    assert tool_text(made) == "find flights: Looks up flights. How do I fly to Oslo?"


def test_options_are_checked() -> None:
    with pytest.raises(InvalidRequest, match="k is 0; it must be at least 1"):
        build("tool_policy", Choice(name="retrieve", options={"k": 0}))


def test_a_run_offers_the_same_after_a_crash_and_keeps_what_it_used(tmp_path: pathlib.Path) -> None:
    agent = spec(tools=tuple(t.name for t in TOOLS), tool_policy=Choice(name="retrieve", options={"k": 1}))

    async def scenario() -> None:
        never = asyncio.Event()
        async with harness(tmp_path, [[call("weather")], [never]], TOOLS) as h:
            run_id = await h.runtime.start(agent, "What is the weather in the city?")
            async for record in h.runtime.events(run_id):
                if record.kind == "model_asked" and record.event.step == 2:  # type: ignore[union-attr]
                    break
        async with harness(tmp_path, [[call("alarm")], ["It rains."]], TOOLS) as h:
            await h.runtime.resume(run_id)
            assert (await h.runtime.wait(run_id)).status == "answered"
            offers = [r.event for r in h.records(run_id) if isinstance(r.event, ToolsOffered)]
            assert [event.tools for event in offers] == [("weather",), ("weather", "alarm")]
            assert {name for name, _ in offers[0].withheld} == {t.name for t in TOOLS} - {"weather"}
            shown = [[t.name for t in request.tools] for request in h.backend.requests]
            assert shown[:2] == [["weather"], ["weather", "alarm"]]

    run(scenario())
