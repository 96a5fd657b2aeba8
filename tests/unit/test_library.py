"""Agents in a few lines of Python: typed answers, events, approvals, sharing, cancellation."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pydantic
import pytest

from agent_support import FREE, call
from pentad.agent.journal import Journal
from pentad.agent.runtime import AgentRuntime
from pentad.api import (
    Agent,
    AgentSpec,
    ApprovalAsked,
    Budget,
    RunEnded,
    RunFailed,
    TextStreamed,
    ToolReturned,
    tool,
)
from pentad.application.services import Services
from pentad.errors import Conflict, InvalidRequest
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend, Turn


@tool(effects="none")
def price(item: str) -> float:
    """What an item costs."""
    return {"lamp": 40.0}[item]


@dataclasses.dataclass(frozen=True)
class Offer:
    item: str
    euros: float


class Bill(pydantic.BaseModel):
    """What is to be paid."""

    offers: list[Offer]
    paid: bool = False


@asynccontextmanager
async def services(
    path: pathlib.Path, turns: Sequence[Turn]
) -> AsyncIterator[tuple[Services, ScriptedBackend]]:
    backend = ScriptedBackend(turns)
    models = ModelService({"scripted": backend}, router=Fixed())
    agents = AgentRuntime(models, Journal(path / "journal.db"))
    try:
        yield Services(models=models, agents=agents), backend
    finally:
        await agents.close()
        await models.close()


def told(path: pathlib.Path, turns: Sequence[Turn], use: Callable[[Services, ScriptedBackend], Any]) -> None:
    async def scenario() -> None:
        async with services(path, turns) as (service, backend), asyncio.timeout(20):
            await use(service, backend)

    asyncio.run(scenario())


def test_a_run_gives_its_answer_and_what_led_to_it(tmp_path: pathlib.Path) -> None:
    async def use(service: Services, backend: ScriptedBackend) -> None:
        async with Agent("shop", tools=[price], planner=FREE, service=service) as shop:
            result = await shop.run("What does a lamp cost?")
            assert result.answer == "40 euros"
            assert [r.content for e in result.state.exchanges for r in e.results.values()] == ["40.0"]
            assert result.tokens > 0
            assert shop.explain(result.run_id).shares

    told(tmp_path, [[call("price", item="lamp")], ["40 euros"]], use)


def test_an_answer_is_of_the_asked_type_and_the_model_is_bound_to_its_form(tmp_path: pathlib.Path) -> None:
    async def use(service: Services, backend: ScriptedBackend) -> None:
        async with Agent("shop", answer=Bill, planner=FREE, service=service) as shop:
            result = await shop.run("Bill a lamp")
            assert result.answer == Bill(offers=[Offer("lamp", 40.0)])
            assert result.answer.offers[0].euros == 40.0
        (asked,) = backend.requests
        assert asked.format.kind == "json_schema"
        assert asked.format.value["required"] == ["offers"]
        async with Agent("shop", answer=Offer, planner=FREE, service=service) as shop:
            with pytest.raises(RunFailed, match="not of the asked form") as failed:
                await shop.run("Bill a lamp")
            assert failed.value.state.answer == '{"item": "la'

    turns = [['{"offers": [{"item": "lamp", "euros": 40}]}'], ['{"item": "la']]
    told(tmp_path, turns, use)


def test_events_come_as_they_happen(tmp_path: pathlib.Path) -> None:
    async def use(service: Services, backend: ScriptedBackend) -> None:
        async with Agent("shop", tools=[price], planner=FREE, service=service) as shop:
            events = [event async for event in shop.stream("What does a lamp cost?")]
        assert "".join(e.text for e in events if isinstance(e, TextStreamed)) == "40 euros"
        assert [e.content for e in events if isinstance(e, ToolReturned)] == ["40.0"]
        assert events[-1] == RunEnded(status="answered", answer="40 euros")

    told(tmp_path, [[call("price", item="lamp")], ["40 ", "euros"]], use)


@pytest.mark.parametrize("approved", [True, False])
def test_a_person_is_asked_through_a_function(tmp_path: pathlib.Path, approved: bool) -> None:
    asked: list[ApprovalAsked] = []

    async def later(question: ApprovalAsked) -> bool:
        asked.append(question)
        return approved

    def at_once(question: ApprovalAsked) -> bool:
        asked.append(question)
        return approved

    async def use(service: Services, backend: ScriptedBackend) -> None:
        for approve in (later, at_once):
            agent = Agent(
                "shop", tools=[price], planner=FREE, ask=["price"], approve=approve, service=service
            )
            async with agent as shop:
                result = await shop.run("What does a lamp cost?")
            (returned,) = [r for e in result.state.exchanges for r in e.results.values()]
            assert (returned.content == "40.0") == approved

    told(tmp_path, [[call("price", item="lamp")], ["fine"]] * 2, use)
    assert [question.tool for question in asked] == ["price", "price"]


def test_who_leaves_a_run_cancels_it(tmp_path: pathlib.Path) -> None:
    async def use(service: Services, backend: ScriptedBackend) -> None:
        assert service.agents is not None
        async with Agent("slow", planner=FREE, service=service) as slow:
            task = asyncio.create_task(slow.run("Wait"))
            await asyncio.sleep(0.2)
            assert len(backend.requests) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            stream = slow.stream("Wait")
            assert isinstance(await anext(stream), object)
            await stream.aclose()
        assert [row.status for row in service.agents.list()] == ["cancelled", "cancelled"]

    told(tmp_path, [[asyncio.Event()], [asyncio.Event()]], use)


def test_a_run_without_an_answer_raises_what_it_came_to(tmp_path: pathlib.Path) -> None:
    async def use(service: Services, backend: ScriptedBackend) -> None:
        async with Agent("poor", planner=FREE, budget=Budget(tokens=1), service=service) as poor:
            with pytest.raises(RunFailed, match="budget_exceeded") as failed:
                await poor.run("Think")
            assert failed.value.state.status == "budget_exceeded"
            with pytest.raises(InvalidRequest):
                await poor.run("")

    told(tmp_path, [["never"]], use)


def test_agents_share_what_one_has_opened_and_a_closed_one_says_so(tmp_path: pathlib.Path) -> None:
    async def use(service: Services, backend: ScriptedBackend) -> None:
        closed = Agent("shop", tools=[price])
        with pytest.raises(Conflict, match="is not open") as refused:
            await closed.run("x")
        assert "async with" in (refused.value.hint or "")
        spec = AgentSpec(name="clerk", instructions="Be brief.", planner=FREE)
        async with (
            Agent("shop", tools=[price], planner=FREE, service=service) as shop,
            Agent(spec, tools=[price], service=shop.service) as clerk,
        ):
            assert clerk.spec.tools == ("price",)
            changed = Agent(spec, instructions="Be kind.", ask=["price"], service=service).spec
            assert (changed.name, changed.instructions, changed.ask) == ("clerk", "Be kind.", ("price",))
            assert changed.planner == FREE
            assert (await clerk.run("x")).answer == "one"
            assert (await shop.run("x")).answer == "two"

    told(tmp_path, [["one"], ["two"]], use)
