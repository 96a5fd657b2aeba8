"""A ChatRequest as a Request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pentad.application.gateway.body import check_free_form
from pentad.application.gateway.schemas.chat import (
    ChatMessage,
    ChatRequest,
    ChatTool,
    ContentPart,
    NamedToolChoice,
    ResponseFormat,
)
from pentad.application.gateway.schemas.common import StructuredOutputs
from pentad.application.gateway.translate.options import sampling
from pentad.errors import InvalidRequest
from pentad.types import Message, OutputFormat, Request, RunContext, Sampling, ToolCall, ToolChoice, ToolSpec

TEXT_PARTS = ("text", "input_text", "output_text")


def chat_request(body: ChatRequest, *, request_id: str, tenant: str, context: RunContext) -> Request:
    """The one request that goes down. Raises InvalidRequest naming the field at fault."""
    tools = tool_specs(body.tools or ())
    return Request(
        id=request_id,
        model=body.model or "",
        messages=messages(body.messages),
        tools=tools,
        tool_choice=tool_choice(body.tool_choice, tools, parallel=body.parallel_tool_calls is not False),
        format=output_format(body.response_format, body.structured_outputs),
        sampling=chat_sampling(body),
        tenant=tenant,
        cache_salt=body.cache_salt or "",
        priority=body.priority or 0,
        prediction="" if body.prediction is None else text_of(body.prediction.content, "prediction.content"),
        template_options=template_options(body),
        context=context,
    )


def messages(wire: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """The turns, with parts joined."""
    return tuple(_message(one, f"messages[{index}]") for index, one in enumerate(wire))


def _message(wire: ChatMessage, where: str) -> Message:
    if wire.role == "tool" and not wire.tool_call_id:
        raise InvalidRequest(
            f"{where} has role 'tool' but no tool_call_id",
            hint="give the id of the call that it answers",
            param=f"{where}.tool_call_id",
        )
    if wire.tool_calls and wire.role != "assistant":
        raise InvalidRequest(
            f"{where} has role {wire.role!r} and tool_calls; only 'assistant' may call tools",
            param=f"{where}.tool_calls",
        )
    if wire.content is None and wire.role != "assistant":
        raise InvalidRequest(f"{where} has no content", param=f"{where}.content")
    calls = tuple(
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in wire.tool_calls or ()
    )
    return Message(
        role=wire.role,
        content=text_of(wire.content, f"{where}.content"),
        name=wire.name,
        tool_calls=calls,
        tool_call_id=wire.tool_call_id if wire.role == "tool" else None,
    )


def text_of(content: str | Sequence[ContentPart] | None, where: str) -> str:
    """The text of a message's content; parts are joined by line breaks."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))


def _part(part: ContentPart, where: str) -> str:
    text = part.refusal if part.type == "refusal" else part.text
    if part.type not in (*TEXT_PARTS, "refusal"):
        raise InvalidRequest(
            f"{where}: parts of type {part.type[:40]!r} are not served here",
            hint=f"send text; types read: {', '.join(TEXT_PARTS)}",
            param=f"{where}.type",
        )
    if text is None:
        raise InvalidRequest(f"{where} has no text", param=f"{where}.text")
    return text


def tool_specs(wire: Sequence[ChatTool]) -> tuple[ToolSpec, ...]:
    """The tools as the model sees them."""
    return tuple(
        tool_spec(tool.function.name, tool.function.description, tool.function.parameters, f"tools[{index}]")
        for index, tool in enumerate(wire)
    )


def tool_spec(name: str, description: str | None, schema: dict[str, Any] | None, where: str) -> ToolSpec:
    """One tool; its schema is bounded before anything walks it."""
    if schema is None:
        return ToolSpec(name=name, description=description or "")
    check_free_form(schema, f"{where}.parameters")
    return ToolSpec(name=name, description=description or "", parameters=schema)


def tool_choice(
    wire: str | NamedToolChoice | None, tools: Sequence[ToolSpec], *, parallel: bool
) -> ToolChoice:
    """Whether tools may, must or must not be called; `required` and names need tools."""
    if isinstance(wire, NamedToolChoice):
        return named_tool(wire.function.name, tools, parallel=parallel)
    if wire == "required" and not tools:
        raise InvalidRequest(
            "tool_choice 'required' without tools",
            hint="send tools, or tool_choice 'auto'",
            param="tool_choice",
        )
    match wire:
        case "none" | "required":
            return ToolChoice(mode=wire, parallel=parallel)
        case _:
            return ToolChoice(parallel=parallel)


def named_tool(name: str, tools: Sequence[ToolSpec], *, parallel: bool) -> ToolChoice:
    """The choice of exactly one tool, which must be among those sent."""
    known = [tool.name for tool in tools]
    if name not in known:
        raise InvalidRequest(
            f"tool_choice names {name[:64]!r}",
            hint=f"tools sent: {', '.join(known[:10]) or 'none'}",
            param="tool_choice",
        )
    return ToolChoice(mode="named", name=name, parallel=parallel)


def output_format(wire: ResponseFormat | None, extra: StructuredOutputs | None) -> OutputFormat:
    """The constraint on the text, from response_format or vLLM's structured_outputs."""
    if extra is not None:
        return structured(extra)
    if wire is None or wire.type == "text":
        return OutputFormat()
    if wire.type == "json_object":
        return OutputFormat(kind="json_object")
    if wire.json_schema is None:
        raise InvalidRequest(
            "response_format 'json_schema' without json_schema", param="response_format.json_schema"
        )
    where = "response_format.json_schema.schema"
    return json_schema(wire.json_schema.schema, where, strict=wire.json_schema.strict)


def json_schema(schema: dict[str, Any] | None, where: str, *, strict: bool | None = None) -> OutputFormat:
    """The constraint to one schema; without a schema, to any object."""
    if schema is None:
        return OutputFormat(kind="json_object")
    check_free_form(schema, where)
    return OutputFormat(kind="json_schema", value=schema, strict=strict)


def structured(wire: StructuredOutputs) -> OutputFormat:
    """vLLM's object; exactly one of its fields may be set."""
    given = {
        name: value
        for name in ("json", "regex", "choice", "grammar", "json_object")
        if (value := getattr(wire, name)) not in (None, False)
    }
    if len(given) != 1:
        raise InvalidRequest(
            f"structured_outputs has {len(given)} constraints; it takes exactly one of json, regex, "
            "choice, grammar, json_object",
            param="structured_outputs",
        )
    match next(iter(given)):
        case "json":
            return json_schema(_schema_object(wire.json), "structured_outputs.json")
        case "regex":
            return OutputFormat(kind="regex", value=wire.regex)
        case "choice":
            return OutputFormat(kind="choice", value=wire.choice)
        case "grammar":
            return OutputFormat(kind="grammar", value=wire.grammar)
        case _:
            return OutputFormat(kind="json_object")


def _schema_object(value: dict[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    try:
        parsed = msgspec.json.decode(value or "")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidRequest(
            "structured_outputs.json is no JSON Schema object", param="structured_outputs.json"
        )
    return parsed


def chat_sampling(body: ChatRequest) -> Sampling:
    """Sampling of a chat request, whose log probabilities take two fields."""
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest(
            "top_logprobs without logprobs", hint="set logprobs to true", param="top_logprobs"
        )
    return sampling(
        body,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )


def template_options(body: ChatRequest) -> dict[str, Any]:
    """Variables for the chat template."""
    options = dict(body.chat_template_kwargs or {})
    check_free_form(options, "chat_template_kwargs")
    if body.reasoning_effort is not None:
        options.setdefault("reasoning_effort", body.reasoning_effort)
    return options
