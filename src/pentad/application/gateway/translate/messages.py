"""Anthropic's request as a Request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pentad.application.gateway.body import check_free_form
from pentad.application.gateway.schemas.messages import (
    Block,
    CountTokensRequest,
    MessagesRequest,
    MessagesToolChoice,
    OutputConfig,
    TurnMessage,
)
from pentad.application.gateway.translate.chat import json_schema, named_tool, tool_spec
from pentad.application.gateway.translate.options import given
from pentad.errors import InvalidRequest
from pentad.types import Message, OutputFormat, Request, RunContext, Sampling, ToolCall, ToolChoice, ToolSpec

_UNREAD = frozenset({"thinking", "redacted_thinking"})
"""Blocks of earlier turns that no model here needs back."""


def messages_request(
    body: CountTokensRequest, *, request_id: str, tenant: str, context: RunContext
) -> Request:
    """The one request that goes down; of a MessagesRequest also how to sample."""
    tools = tuple(
        tool_spec(tool.name, tool.description, _schema(tool.input_schema, tool.type, i), f"tools[{i}]")
        for i, tool in enumerate(body.tools or ())
    )
    system = _text(body.system, "system")
    turns = [m for i, turn in enumerate(body.messages) for m in _turn(turn, f"messages[{i}]")]
    first = (Message(role="system", content=system),) if system else ()
    return Request(
        id=request_id,
        model=body.model,
        messages=(*first, *turns),
        tools=tools,
        tool_choice=_choice(body.tool_choice, tools),
        format=_format(body.output_config),
        sampling=_sampling(body) if isinstance(body, MessagesRequest) else Sampling(),
        tenant=tenant,
        template_options=_options(body),
        context=context,
    )


def _schema(schema: dict[str, Any] | None, kind: str | None, index: int) -> dict[str, Any]:
    if kind not in (None, "custom"):
        raise InvalidRequest(
            f"tools[{index}] is of type {kind[:40]!r}, which runs at its vendor",
            hint="declare it as your own tool with input_schema",
            param=f"tools[{index}].type",
        )
    if schema is None:
        raise InvalidRequest(f"tools[{index}] has no input_schema", param=f"tools[{index}].input_schema")
    return schema


def _turn(turn: TurnMessage, where: str) -> Iterator[Message]:
    """The messages of one turn: results of tools come before the user's words."""
    if isinstance(turn.content, str):
        yield Message(role=turn.role, content=turn.content)
        return
    text: list[str] = []
    calls: list[ToolCall] = []
    for index, block in enumerate(turn.content):
        at = f"{where}.content[{index}]"
        if block.type == "tool_result" and turn.role == "user":
            yield _result(block, at)
        elif block.type == "tool_use" and turn.role == "assistant":
            calls.append(_call(block, at))
        elif block.type not in _UNREAD:
            text.append(_block_text(block.type, block.text, at))
    if text or calls:
        yield Message(role=turn.role, content="\n".join(text), tool_calls=tuple(calls))


def _result(block: Block, where: str) -> Message:
    if block.tool_use_id is None:
        raise InvalidRequest(f"{where} has no tool_use_id", param=f"{where}.tool_use_id")
    content = block.content
    if content is not None and not isinstance(content, str):
        content = "\n".join(
            _block_text(str(part.get("type")), part.get("text"), f"{where}.content[{i}]")
            for i, part in enumerate(content)
        )
    failed = "error: " if block.is_error else ""
    return Message(role="tool", content=failed + (content or ""), tool_call_id=block.tool_use_id)


def _call(block: Block, where: str) -> ToolCall:
    if block.id is None or block.name is None:
        raise InvalidRequest(f"{where} needs id and name", param=where)
    check_free_form(block.input, f"{where}.input")
    arguments = msgspec.json.encode(block.input or {}).decode()
    return ToolCall(id=block.id, name=block.name, arguments=arguments)


def _block_text(kind: str, text: Any, where: str) -> str:
    if kind != "text":
        raise InvalidRequest(
            f"{where}: blocks of type {kind[:40]!r} are not served here",
            hint="send text, tool_use and tool_result",
            param=f"{where}.type",
        )
    if not isinstance(text, str):
        raise InvalidRequest(f"{where} has no text", param=f"{where}.text")
    return text


def _text(content: str | Sequence[Block] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_block_text(block.type, block.text, f"{where}[{i}]") for i, block in enumerate(content))


def _choice(wire: MessagesToolChoice | None, tools: Sequence[ToolSpec]) -> ToolChoice:
    if wire is None:
        return ToolChoice()
    parallel = not wire.disable_parallel_tool_use
    match wire.type:
        case "tool":
            return named_tool(wire.name or "", tools, parallel=parallel)
        case "any":
            if not tools:
                raise InvalidRequest("tool_choice 'any' without tools", param="tool_choice")
            return ToolChoice(mode="required", parallel=parallel)
        case "none":
            return ToolChoice(mode="none")
        case "auto":
            return ToolChoice(parallel=parallel)


def _format(config: OutputConfig | None) -> OutputFormat:
    if config is None or config.format is None:
        return OutputFormat()
    return json_schema(config.format.schema, "output_config.format.schema")


def _options(body: CountTokensRequest) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if body.thinking is not None:
        options["enable_thinking"] = body.thinking.type != "disabled"
    if body.output_config is not None and body.output_config.effort is not None:
        options["reasoning_effort"] = body.output_config.effort
    return options


def _sampling(body: MessagesRequest) -> Sampling:
    return Sampling(
        temperature=given(body.temperature, 1.0),
        top_p=given(body.top_p, 1.0),
        top_k=body.top_k or 0,
        max_tokens=body.max_tokens,
        stop=tuple(body.stop_sequences or ()),
    )
