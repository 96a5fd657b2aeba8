"""Agent A hands over to agent B, which calls a tool: over Responses and over Chat Completions."""

import asyncio
import json
import sys

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
)
from openai import AsyncOpenAI

CLIENT = AsyncOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="unused", max_retries=0)


@function_tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


async def answer(model: object, *, streamed: bool) -> dict[str, object]:
    adder = Agent(name="adder", instructions="Add numbers.", tools=[add], model=model)
    greeter = Agent(name="greeter", instructions="Hand sums over.", handoffs=[adder], model=model)
    config = RunConfig(tracing_disabled=True)
    if streamed:
        result = Runner.run_streamed(greeter, "What is 1 and 2?", run_config=config)
        async for _ in result.stream_events():
            pass
    else:
        result = await Runner.run(greeter, "What is 1 and 2?", run_config=config)
    handoffs = sum(item.type == "handoff_output_item" for item in result.new_items)
    return {"answer": result.final_output, "agent": result.last_agent.name, "handoffs": handoffs}


async def main() -> None:
    said = {
        "responses": await answer(OpenAIResponsesModel("scripted", CLIENT), streamed=False),
        "chat": await answer(OpenAIChatCompletionsModel("scripted", CLIENT), streamed=True),
    }
    print(json.dumps(said))


asyncio.run(main())
