"""Python libraries: each makes its own requests and reads our answers with its own types."""

from __future__ import annotations

from pentad.model.backends.completion_limit import answer_room
from pentad.testing.backends import Item, Turn
from pentad.types import Request, ToolCall
from real_clients.case import Case, Install, Seen, call, roles, tool_results

SUM = '{"total": 3, "words": ["one", "two"]}'
PYTHON = "{home}/bin/python"


def _add() -> ToolCall:
    return call("add", '{"a": 1, "b": 2}')


def _program(name: str) -> tuple[str, ...]:
    return (PYTHON, "{programs}/" + name, "{url}")


def _handoff() -> list[Turn]:
    return [[call("transfer_to_adder", "{}")], [_add()], ["It is ", "3."]]


def _sum_call() -> list[Turn]:
    return [[_add()], [call("final_result", SUM)]]


def _runner() -> list[Turn]:
    return [[_add()], ["Now double.", call("add", '{"a": 3, "b": 3}')], ["6"]]


def _handed_over(seen: Seen) -> None:
    for dialect in ("responses", "chat"):
        assert seen.said[dialect] == {"answer": "It is 3.", "agent": "adder", "handoffs": 1}, seen.said
    first, second, third = seen.requests[:3]
    assert {tool.name for tool in first.tools} == {"transfer_to_adder"}
    assert {tool.name for tool in second.tools} == {"add"}
    assert tool_results(third)[-1] == "3"


def _typed(seen: Seen) -> None:
    expected = {"total": 3, "words": ["one", "two"]}
    assert seen.said == dict.fromkeys(("chat", "streamed", "responses", "native", "anthropic"), expected)
    assert "3" in tool_results(seen.requests[1])


def _graph(seen: Seen) -> None:
    assert seen.said["answer"] == "It is 3."
    assert seen.said["types"] == ["human", "ai", "tool", "ai"]
    assert seen.said["pieces"] > 1, "the answer was not streamed"
    assert seen.said["remembered"] == 6, "the second question did not go on with the first"
    assert roles(seen.requests[-1])[:4] == ["user", "assistant", "tool", "assistant"]


def _structured(seen: Seen) -> None:
    expected = {"total": 3, "words": ["one", "two"]}
    methods = ("json_mode", "json_schema", "function_calling")
    assert seen.said == dict.fromkeys((*methods, "streamed"), expected), seen.said
    assert [r.format.kind for r in seen.requests[:2]] == ["json_object", "json_schema"]
    assert seen.requests[2].tool_choice.mode == "named"


def _overflow(request: Request) -> list[Item]:
    """The product's own rule, applied to a prompt of as many tokens as it has words."""
    words = sum(len(message.content.split()) for message in request.messages or ())
    answer_room(request, words, context=8192, model="scripted", at_s=0.0)
    return ["It fits."]


def _mapped(seen: Seen) -> None:
    for dialect in ("openai", "openai_stream", "anthropic", "responses"):
        assert seen.said[dialect] == "ContextWindowExceededError", seen.said
    assert seen.said["short"] == {"openai": "It fits.", "anthropic": "It fits.", "fallback": "It fits."}


def _structured_turns() -> list[Turn]:
    return [[SUM], [SUM], [call("Sum", SUM)], ['{"total": 3, ', '"words": ["one", "two"]}']]


def _ran(seen: Seen) -> None:
    assert seen.said == ["6", "6"], seen.said
    whole = ["user", "assistant", "tool", "assistant", "tool"]
    assert [roles(seen.requests[i]) for i in (2, 5)] == [whole, whole], "a turn came without those before"


def _chatted(seen: Seen) -> None:
    said = seen.said
    assert said["models"][0] == "scripted", said
    assert [c["function"] for c in said["calls"]] == [{"name": "add", "arguments": '{"a": 1, "b": 2}'}], said
    assert said["text"] == "It is 3.", said
    assert said["usage"]["total_tokens"] > 0, said
    assert (said["title"], said["tags"], said["follow_ups"]) == ("Sums", ["maths"], ["And 3?"]), said
    assert said["vectors"] == 2, said
    assert roles(seen.requests[1]) == ["system", "user", "assistant", "tool"]


CASES = (
    Case(
        name="anthropic",
        install=Install(name="anthropic", pip=("anthropic",)),
        did="tool_runner with threads, plain and streamed: sends the whole conversation when refused",
        command=_program("anthropic_tool_runner.py"),
        turns=_runner() + _runner(),
        check=_ran,
        light=True,
    ),
    Case(
        name="openai-agents",
        install=Install(name="openai-agents", pip=("openai-agents",)),
        did="handoff to a second agent that calls a tool; Responses and Chat Completions, streamed",
        command=_program("openai_agents_handoff.py"),
        environment={"OPENAI_AGENTS_DISABLE_TRACING": "1"},
        turns=_handoff() + _handoff(),
        check=_handed_over,
        light=True,
    ),
    Case(
        name="pydantic-ai",
        install=Install(
            name="pydantic-ai", pip=("pydantic-ai-slim[openai,anthropic]",), version_of="pydantic-ai-slim"
        ),
        did="tool and typed result; chat plain and streamed, Responses, native JSON schema, Anthropic",
        command=_program("pydantic_ai_typed.py"),
        turns=[
            *(turn for _ in range(3) for turn in _sum_call()),
            *([_add()], [SUM]),
            *_sum_call(),
        ],
        check=_typed,
        light=True,
    ),
    Case(
        name="langgraph",
        install=Install(name="langgraph", pip=("langgraph", "langchain", "langchain-openai")),
        did="agent graph with a tool, streamed by token, a second question over the checkpoint",
        command=_program("langgraph_agent.py"),
        turns=[[_add()], ["It is ", "3."], ["You asked for 1 and 2."]],
        check=_graph,
    ),
    Case(
        name="langchain",
        install=Install(
            name="langgraph",
            pip=("langgraph", "langchain", "langchain-openai"),
            version_of="langchain-openai",
        ),
        did="with_structured_output by json_mode, json_schema and function_calling; json_mode streamed",
        command=_program("langchain_structured.py"),
        turns=_structured_turns(),
        check=_structured,
    ),
    Case(
        name="litellm",
        install=Install(name="litellm", pip=("litellm",)),
        did="a prompt too long is its ContextWindowExceededError in three dialects; the fallback is taken",
        command=_program("litellm_overflow.py"),
        turns=[_overflow],
        check=_mapped,
    ),
    Case(
        name="open-webui",
        install=Install(name="open-webui", pip=("aiohttp",), version_of="aiohttp"),
        did="its calls, not the program: models, streamed chat with a tool, title, tags, follow-ups, vectors",
        command=_program("open_webui_calls.py"),
        turns=[
            [_add()],
            ["It is ", "3."],
            ['```json\n{"title": "Sums"}\n```'],
            ['{"tags": ["maths"]}'],
            ['Here: {"follow_ups": ["And 3?"]}'],
        ],
        check=_chatted,
    ),
)
