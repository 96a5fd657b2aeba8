"""Prompts that begin alike, computed once by the real engine: inheriting sub-agents, tools that come late."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from agent_support import FREE, run
from led_models import Led, led
from pentad import registry
from pentad.agent.journal import Journal
from pentad.agent.model_events import ModelAnswered
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Tool, Toolbox, ToolContext
from pentad.agent.tools.policy.base import Offer, Offerable
from pentad.choice import Choice
from pentad.model.relevance import Relevance

BEDS = "\n".join(f"Bed {n} has {n * 7 % 23} kg of pears and was watered in week {n % 5}." for n in range(36))
BLOCK_TOKENS = 32
"""At most so many tokens of a prefix are computed again, since whole blocks are shared."""


def answers(journal: Journal, run_id: str) -> list[ModelAnswered]:
    return [r.event for r in journal.read(run_id) if isinstance(r.event, ModelAnswered)]


@pytest.mark.thorough
def test_a_sub_agent_that_inherits_computes_less_than_a_sixth_of_its_prompt(
    tmp_path: pathlib.Path, smollm2_path: pathlib.Path
) -> None:
    member = AgentSpec(
        name="ann",
        description="knows the garden",
        instructions="Answer in one short sentence.",
        inherit="conversation",
        planner=FREE,
        max_steps=1,
        max_tokens=6,
    )
    lead = AgentSpec(
        name="lead",
        instructions=f"You lead a team that tends a garden. The garden:\n{BEDS}",
        coordinator=Choice(name="supervisor"),
        agents={"ann": member},
        planner=FREE,
        max_steps=2,
        max_tokens=6,
    )
    task = '{"member": "ann", "task": "Which bed has the most pears?"}'

    async def scenario() -> None:
        models = led(smollm2_path, [("delegate", task)], prefix_cache=True)
        journal = Journal(tmp_path / "journal.db")
        runtime = AgentRuntime(models, journal)
        try:
            state = await runtime.wait(await runtime.start(lead, "Find the best bed."))
            (child,) = state.children.values()
            (answer,) = answers(journal, child.run_id)
            asked = next(one for one in models.asked if one.shown_tools is not None)
        finally:
            await runtime.close()
            await models.close()
        plain = led(smollm2_path, prefix_cache=False)
        try:
            alone = await plain.complete(asked)
        finally:
            await plain.close()
        assert alone.usage.cached_tokens == 0
        assert alone.usage.prompt_tokens == answer.usage.prompt_tokens > 600
        assert (alone.message.content, alone.message.tool_calls) == (answer.text, answer.tool_calls)
        computed = answer.usage.prompt_tokens - answer.usage.cached_tokens
        assert computed <= 0.15 * alone.usage.prompt_tokens

    run(scenario(), 120)


def tool(name: str) -> Tool:
    async def act(arguments: Mapping[str, Any], context: ToolContext) -> str:
        return f"{name} is done"

    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return Tool(name=name, description=f"Does {name}.", parameters=schema, call=act, effects="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByStep:
    """A policy that offers one more tool in each step."""

    name = "by-step"

    async def offer(self, given: Offerable, relevance: Relevance) -> Offer:
        return Offer(tools=tuple(t.name for t in given.tools)[: given.state.step], why="its turn is not now")


@pytest.mark.thorough
def test_a_step_that_gets_a_further_tool_computes_what_was_appended_alone(
    tmp_path: pathlib.Path, smollm2_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = {**registry.TABLE["tool_policy"], "by-step": f"{__name__}:ByStep"}
    monkeypatch.setitem(registry._TABLE, "tool_policy", policies)
    agent = AgentSpec(
        name="gardener",
        instructions=f"You tend a garden:\n{BEDS}",
        tools=("dig", "sow", "rake"),
        tool_policy=Choice(name="by-step"),
        planner=FREE,
        max_steps=4,  # the last one has to answer, without tools
        max_tokens=6,
    )

    async def scenario() -> None:
        models: Led = led(smollm2_path, [("dig", "{}"), ("sow", "{}")], prefix_cache=True)
        journal = Journal(tmp_path / "journal.db")
        runtime = AgentRuntime(models, journal, toolbox=Toolbox([tool("dig"), tool("sow"), tool("rake")]))
        try:
            run_id = await runtime.start(agent, "Grow beans.")
            await runtime.wait(run_id)
            steps = [answer.usage for answer in answers(journal, run_id)]
        finally:
            await runtime.close()
            await models.close()
        assert [len(request.tools) for request in models.asked[:2]] == [1, 2]
        assert steps[0].cached_tokens == 0
        assert len(steps) >= 3
        for before, after in itertools.pairwise(steps[:3]):
            appended = after.prompt_tokens - before.prompt_tokens
            assert 0 < appended < 0.15 * after.prompt_tokens
            assert after.prompt_tokens - after.cached_tokens <= appended + BLOCK_TOKENS

    run(scenario(), 120)
