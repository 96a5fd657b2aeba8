"""A tool and a typed result, in every way that pydantic-ai has to ask for one."""

import asyncio
import json
import sys

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

URL = sys.argv[1]
OPENAI = OpenAIProvider(openai_client=AsyncOpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0))
ANTHROPIC = AnthropicProvider(anthropic_client=AsyncAnthropic(base_url=URL, api_key="unused", max_retries=0))
ASK = "What is 1 and 2?"


class Sum(BaseModel):
    total: int
    words: list[str]


def agent(model: object, output: object = Sum) -> Agent:
    made = Agent(model, output_type=output, instructions="Be exact.")

    @made.tool_plain
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    return made


async def main() -> None:
    chat = OpenAIChatModel("scripted", provider=OPENAI)
    said = {"chat": (await agent(chat).run(ASK)).output}
    async with agent(chat).run_stream(ASK) as result:
        said["streamed"] = await result.get_output()
    responses = OpenAIResponsesModel("scripted", provider=OPENAI)
    said["responses"] = (await agent(responses).run(ASK)).output
    said["native"] = (await agent(chat, NativeOutput(Sum)).run(ASK)).output
    said["anthropic"] = (await agent(AnthropicModel("scripted", provider=ANTHROPIC)).run(ASK)).output
    print(json.dumps({name: output.model_dump() for name, output in said.items()}))


asyncio.run(main())
