"""One framework in this process, for agent_frameworks.py: prints its figures as one JSON line.

    python agent_framework_peer.py CASE STEPS RUNS

Imports nothing but the framework that it measures.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

Run = Callable[[], Awaitable[str]]
"""Works on one fresh run and gives its answer."""
GOAL = "Add up."
ANSWER = "all done"
OPEN: list[Any] = []
"""What is closed with the process."""


def arguments(step: int) -> dict[str, int]:
    return {"a": step, "b": 1}


async def pentad(steps: int, folder: pathlib.Path) -> Run:
    from collections.abc import AsyncGenerator

    from pentad.agent.journal import Journal
    from pentad.agent.runtime import AgentRuntime
    from pentad.agent.spec import AgentSpec
    from pentad.agent.tools.base import Toolbox
    from pentad.agent.tools.functions import tool
    from pentad.choice import Choice
    from pentad.execution.backend import (
        Capabilities,
        ChoiceDone,
        Delta,
        StreamDone,
        TextDelta,
        ToolCallDelta,
    )
    from pentad.model.routing.fixed import Fixed
    from pentad.model.service import ModelService
    from pentad.types import Request, Usage

    @tool(effects="unkeyed")
    async def add(a: int, b: int) -> str:
        """Adds."""
        return str(a + b)

    class Scripted:
        capabilities = Capabilities(model="scripted", context_length=1 << 20)

        async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
            done = sum(message.role == "assistant" for message in request.messages or ())
            if done >= steps:
                yield TextDelta(text=ANSWER)
                yield ChoiceDone(reason="stop")
            else:
                words = json.dumps(arguments(done))
                yield ToolCallDelta(index=0, id=f"c{done}", name="add", arguments=words)
                yield ChoiceDone(reason="tool_calls")
            yield StreamDone(usage=Usage(prompt_tokens=1, completion_tokens=1))

        def count_tokens(self, request: Request) -> int:
            return len(request.messages or ())

        def stats(self) -> dict[str, float]:
            return {}

        def check(self) -> str | None:
            return None

        async def close(self) -> None:
            pass

    models = ModelService({"scripted": Scripted()}, router=Fixed())
    runtime = AgentRuntime(models, Journal(folder / "journal.db"), toolbox=Toolbox([add]))
    react = Choice(name="react", options={"max_plan": 0})
    agent = AgentSpec(name="adder", tools=("add",), planner=react, max_steps=steps + 2)

    async def run() -> str:
        run_id = await runtime.start(agent, GOAL)
        return (await runtime.wait(run_id)).answer

    return run


async def langgraph(steps: int, folder: pathlib.Path, *, durable: bool = False) -> Run:
    from langchain_core.language_models.chat_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langchain_core.tools import tool
    from langgraph.prebuilt import create_react_agent

    class Scripted(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "scripted"

        def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
            done = sum(message.type == "ai" for message in messages)
            made = AIMessage(content=ANSWER)
            if done < steps:
                call = {"name": "add", "args": arguments(done), "id": f"c{done}"}
                made = AIMessage(content="", tool_calls=[call])
            return ChatResult(generations=[ChatGeneration(message=made)])

        async def _agenerate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
            return self._generate(messages)

        def bind_tools(self, *_: Any, **__: Any) -> Any:
            return self

    @tool
    async def add(a: int, b: int) -> str:
        """Adds."""
        return str(a + b)

    saver = None
    if durable:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        opened = AsyncSqliteSaver.from_conn_string(str(folder / "graph.db"))
        saver = await opened.__aenter__()
        OPEN.append(opened)
    graph = create_react_agent(Scripted(), [add], checkpointer=saver)
    number = 0

    async def run() -> str:
        nonlocal number
        number += 1
        config = {"recursion_limit": 3 * steps + 10, "configurable": {"thread_id": str(number)}}
        options = {"durability": "sync"} if durable else {}
        state = await graph.ainvoke({"messages": [("user", GOAL)]}, config, **options)
        return str(state["messages"][-1].content)

    return run


async def pydantic_ai(steps: int, _: pathlib.Path) -> Run:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel
    from pydantic_ai.usage import UsageLimits

    async def scripted(messages: Any, _: Any) -> ModelResponse:
        done = sum(isinstance(message, ModelResponse) for message in messages)
        if done >= steps:
            return ModelResponse(parts=[TextPart(ANSWER)])
        return ModelResponse(parts=[ToolCallPart("add", arguments(done), f"c{done}")])

    agent = Agent(FunctionModel(scripted))

    @agent.tool_plain
    async def add(a: int, b: int) -> str:
        """Adds."""
        return str(a + b)

    async def run() -> str:
        return str((await agent.run(GOAL, usage_limits=UsageLimits(request_limit=steps + 2))).output)

    return run


async def openai_agents(steps: int, _: pathlib.Path) -> Run:
    from agents import Agent, ModelResponse, RunConfig, Runner, Usage, function_tool, set_tracing_disabled
    from agents.models.interface import Model
    from openai.types.responses import (
        ResponseFunctionToolCall,
        ResponseOutputMessage,
        ResponseOutputText,
    )

    set_tracing_disabled(True)

    class Scripted(Model):
        async def get_response(self, *words: Any, **named: Any) -> ModelResponse:
            input = named["input"] if "input" in named else words[1]
            done = 0 if isinstance(input, str) else sum(i.get("type") == "function_call" for i in input)
            made: Any
            if done >= steps:
                text = ResponseOutputText(text=ANSWER, type="output_text", annotations=[])
                made = ResponseOutputMessage(
                    id="m", role="assistant", status="completed", type="message", content=[text]
                )
            else:
                words = json.dumps(arguments(done))
                made = ResponseFunctionToolCall(
                    call_id=f"c{done}", name="add", arguments=words, type="function_call"
                )
            return ModelResponse(output=[made], usage=Usage(), response_id=None)

        def stream_response(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    @function_tool
    async def add(a: int, b: int) -> str:
        """Adds."""
        return str(a + b)

    agent = Agent(name="adder", tools=[add], model=Scripted())

    async def run() -> str:
        done = await Runner.run(agent, GOAL, max_turns=steps + 2, run_config=RunConfig(tracing_disabled=True))
        return str(done.final_output)

    return run


async def smolagents(steps: int, _: pathlib.Path) -> Run:
    from smolagents import ToolCallingAgent, tool
    from smolagents.models import (
        ChatMessage,
        ChatMessageToolCall,
        ChatMessageToolCallFunction,
        MessageRole,
        Model,
    )

    class Scripted(Model):
        done = 0

        def generate(self, *_: Any, **__: Any) -> ChatMessage:
            at, self.done = self.done, self.done + 1
            function = ChatMessageToolCallFunction(name="add", arguments=arguments(at))
            if at >= steps:
                self.done = 0
                function = ChatMessageToolCallFunction(name="final_answer", arguments={"answer": ANSWER})
            call = ChatMessageToolCall(id=f"c{at}", type="function", function=function)
            return ChatMessage(role=MessageRole.ASSISTANT, content="", tool_calls=[call])

    @tool
    def add(a: int, b: int) -> str:
        """Adds.

        Args:
            a: one.
            b: the other.
        """
        return str(a + b)

    agent = ToolCallingAgent(tools=[add], model=Scripted(), max_steps=steps + 2, verbosity_level=0)

    async def run() -> str:
        return str(agent.run(GOAL))

    return run


def rss_mb() -> float:
    """Resident memory now."""
    fields = pathlib.Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


async def main(case: str, steps: int, runs: int, folder: pathlib.Path) -> dict[str, float]:
    began = time.perf_counter()
    made = {
        "pentad": pentad,
        "langgraph": langgraph,
        "pydantic-ai": pydantic_ai,
        "openai-agents": openai_agents,
        "smolagents": smolagents,
    }
    name = case.removesuffix("-sqlite")
    build: Any = made[name]
    run = await (build(steps, folder, durable=True) if case.endswith("-sqlite") else build(steps, folder))
    import_s = time.perf_counter() - began
    gc.collect()
    idle_mb = rss_mb()
    assert await run() == ANSWER
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(runs):
        assert await run() == ANSWER
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cpu_ms": 1e3 * cpu / runs / steps,
        "wall_ms": 1e3 * wall / runs / steps,
        "idle_mb": idle_mb,
        "growth_mb": peak_mb - idle_mb,
        "peak_mb": peak_mb,
        "rss_mb": rss_mb(),
        "import_s": import_s,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=pathlib.Path.home()) as where:
        words = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(where)
        figures = asyncio.run(main(*words))
        print(json.dumps(figures), flush=True)
    os._exit(0)  # what threads a framework leaves is not waited for
