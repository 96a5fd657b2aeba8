"""A sub-agent that inherits starts from its lead's KV cache, and says what it would say without any cache."""

from __future__ import annotations

import pathlib

import pytest

from agent_support import FREE, run
from evidence.plugin import Measure
from led_models import led
from pentad.agent.journal import Journal
from pentad.agent.model_events import ModelAnswered
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.choice import Choice

pytestmark = pytest.mark.slow
REPORT = "\n".join(
    f"Bed {n} has {n * 7 % 23} kg of pears, was watered in week {n % 5} and pruned by Ann." for n in range(60)
)
TASK = '{"member": "ann", "task": "Say which bed has the most pears."}'


def team() -> AgentSpec:
    member = AgentSpec(
        name="ann",
        description="knows the garden",
        instructions="Answer in one short sentence.",
        tools=("calculator",),
        inherit="conversation",
        planner=FREE,
        max_steps=2,
        max_tokens=24,
    )
    return AgentSpec(
        name="lead",
        instructions=f"You lead a team that tends a garden. The garden:\n{REPORT}",
        tools=("calculator", "calendar"),
        coordinator=Choice(name="supervisor"),
        agents={"ann": member},
        planner=FREE,
        max_steps=2,
        max_tokens=24,
    )


@pytest.mark.parametrize("name", ["smollm2", "qwen"])
def test_a_sub_agent_that_inherits_computes_the_end_of_its_first_prompt_alone(
    name: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest, measured: Measure
) -> None:
    path: pathlib.Path = request.getfixturevalue(f"{name}_path")

    async def scenario() -> None:
        models = led(path, [("delegate", TASK)], prefix_cache=True)
        journal = Journal(tmp_path / "journal.db")
        runtime = AgentRuntime(models, journal)
        try:
            run_id = await runtime.start(team(), "Find the best bed.")
            state = await runtime.wait(run_id)
            (child,) = state.children.values()
            records = journal.read(child.run_id)
            answer = next(r.event for r in records if isinstance(r.event, ModelAnswered))
            asked = next(one for one in models.asked if one.shown_tools is not None)
        finally:
            await runtime.close()
            await models.close()
        plain = led(path, prefix_cache=False)
        try:
            alone = await plain.complete(asked)
        finally:
            await plain.close()
        assert alone.usage.cached_tokens == 0
        assert alone.usage.prompt_tokens == answer.usage.prompt_tokens
        assert (alone.message.content, alone.message.tool_calls) == (answer.text, answer.tool_calls)
        computed = answer.usage.prompt_tokens - answer.usage.cached_tokens
        print(f"{name}: {computed} of {alone.usage.prompt_tokens} prompt tokens computed")
        part = computed / alone.usage.prompt_tokens
        measured("prompt tokens computed, of those without inheritance", part, at_most=0.15)

    run(scenario(), 600)
