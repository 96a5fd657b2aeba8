"""A sub-agent that inherits starts from its lead's KV cache, and says what it would say without any cache."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncGenerator

import pytest

from agent_support import FREE, run
from evidence.plugin import Measure
from pentad.agent.journal import Journal
from pentad.agent.model_events import ModelAnswered
from pentad.agent.runtime import AgentRuntime
from pentad.agent.spec import AgentSpec
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.choice import Choice
from pentad.execution.backend import ChoiceDone, Delta, StreamDone, ToolCallDelta
from pentad.model.loading import open_model
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.types import Request

pytestmark = pytest.mark.slow
REPORT = "\n".join(
    f"Bed {n} has {n * 7 % 23} kg of pears, was watered in week {n % 5} and pruned by Ann." for n in range(60)
)
TASK = '{"member": "ann", "task": "Say which bed has the most pears."}'


class Led(ModelService):
    """The real model, whose first answer to the lead is a task: small models give them out by chance only."""

    asked: list[Request]

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        self.asked.append(request)
        first = len(self.asked) == 1
        async for delta in super().stream(request):
            if not first:
                yield delta
            elif isinstance(delta, StreamDone):
                yield ToolCallDelta(index=0, id="c1", name="delegate", arguments=TASK)
                yield ChoiceDone(reason="tool_calls")
                yield delta


def service(path: pathlib.Path, *, prefix_cache: bool) -> Led:
    settings = EngineSettings(kv_bytes=384 << 20, prefix_cache=prefix_cache)
    models = Led({"model": local_backend(open_model(path), settings)}, router=Fixed())
    models.asked = []
    return models


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
        models = service(path, prefix_cache=True)
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
        plain = service(path, prefix_cache=False)
        plain.asked.append(asked)  # so that it is no first call
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
