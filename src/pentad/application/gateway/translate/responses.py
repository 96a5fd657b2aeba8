"""A ResponseRequest as a Request, with the stored turns that it continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pentad.application.gateway.schemas.responses import (
    InputItem,
    ResponseRequest,
    ResponseTool,
    ResponseToolChoice,
    TextConfig,
)
from pentad.application.gateway.translate.chat import json_schema, named_tool, text_of, tool_spec
from pentad.application.gateway.translate.options import given
from pentad.errors import InvalidRequest
from pentad.types import Message, OutputFormat, Request, RunContext, Sampling, ToolCall, ToolChoice, ToolSpec


def response_request(
    body: ResponseRequest,
    *,
    request_id: str,
    tenant: str,
    context: RunContext,
    before: Sequence[Message],
    ignored: list[str],
) -> Request:
    """The one request that goes down.

    Args:
        body: as read.
        request_id: also the response's id.
        tenant: whose it is.
        context: the run that it belongs to.
        before: the stored turns that it continues, without their instructions.
        ignored: takes the names of tools that are not served.
    """
    tools = _tools(body.tools or (), ignored)
    options = {}
    if body.reasoning is not None and body.reasoning.effort is not None:
        options["reasoning_effort"] = body.reasoning.effort
    first = (Message(role="system", content=body.instructions),) if body.instructions else ()
    return Request(
        id=request_id,
        model=body.model or "",
        messages=(*first, *before, *input_messages(body)),
        tools=tools,
        tool_choice=_choice(body.tool_choice, tools, parallel=body.parallel_tool_calls is not False),
        format=_format(body.text),
        sampling=Sampling(
            temperature=given(body.temperature, 1.0),
            top_p=given(body.top_p, 1.0),
            max_tokens=body.max_output_tokens,
            logprobs=body.top_logprobs or (0 if wants_logprobs(body) else None),
        ),
        tenant=tenant,
        template_options=options,
        context=context,
    )


def wants_logprobs(body: ResponseRequest) -> bool:
    """Whether log probabilities were asked for, which takes an entry of `include`."""
    return "message.output_text.logprobs" in (body.include or ())


def input_messages(body: ResponseRequest) -> list[Message]:
    """The new turns."""
    if isinstance(body.input, str):
        return [Message(role="user", content=body.input)]
    turns: list[Message] = []
    for index, item in enumerate(body.input):
        _add(turns, item, f"input[{index}]")
    return turns


def _add(turns: list[Message], item: InputItem, where: str) -> None:
    match item.type:
        case "message":
            if item.role is None:
                raise InvalidRequest(f"{where} has no role", param=f"{where}.role")
            if item.content is None:
                raise InvalidRequest(f"{where} has no content", param=f"{where}.content")
            turns.append(Message(role=item.role, content=text_of(item.content, f"{where}.content")))
        case "function_call":
            add_call(turns, _call(item, where))
        case "function_call_output":
            if item.call_id is None or item.output is None:
                raise InvalidRequest(f"{where} needs call_id and output", param=where)
            text = text_of(item.output, f"{where}.output")
            turns.append(Message(role="tool", content=text, tool_call_id=item.call_id))
        case "reasoning":
            pass  # of an earlier turn; no model here needs it back
        case _:
            raise InvalidRequest(
                f"{where}: items of type {item.type[:40]!r} are not served here",
                hint="send message, function_call, function_call_output and reasoning items",
                param=f"{where}.type",
            )


def _call(item: InputItem, where: str) -> ToolCall:
    if item.call_id is None or item.name is None:
        raise InvalidRequest(f"{where} needs call_id and name", param=where)
    return ToolCall(id=item.call_id, name=item.name, arguments=item.arguments or "{}")


def add_call(turns: list[Message], call: ToolCall) -> None:
    """Adds a call to the assistant's turn that is last, or begins one."""
    if turns and turns[-1].role == "assistant":
        turns[-1] = replace(turns[-1], tool_calls=(*turns[-1].tool_calls, call))
    else:
        turns.append(Message(role="assistant", tool_calls=(call,)))


def _tools(wire: Sequence[ResponseTool], ignored: list[str]) -> tuple[ToolSpec, ...]:
    specs: list[ToolSpec] = []
    for index, tool in enumerate(wire):
        if tool.type != "function":
            ignored.append(f"tools[{index}].type={tool.type}")
        elif not tool.name:
            raise InvalidRequest(f"tools[{index}] has no name", param=f"tools[{index}].name")
        else:
            specs.append(tool_spec(tool.name, tool.description, tool.parameters, f"tools[{index}]"))
    return tuple(specs)


def _choice(
    wire: str | ResponseToolChoice | None, tools: Sequence[ToolSpec], *, parallel: bool
) -> ToolChoice:
    if isinstance(wire, ResponseToolChoice):
        if wire.type != "function":
            raise InvalidRequest(
                f"tool_choice of type {wire.type[:40]!r} is not served here",
                hint="choose auto, none, required or a function",
                param="tool_choice",
            )
        return named_tool(wire.name or "", tools, parallel=parallel)
    if wire == "none":
        return ToolChoice(mode="none")
    if wire == "required":
        if not tools:
            raise InvalidRequest("tool_choice 'required' without tools", param="tool_choice")
        return ToolChoice(mode="required", parallel=parallel)
    return ToolChoice(parallel=parallel)


def _format(text: TextConfig | None) -> OutputFormat:
    if text is None or text.format is None or text.format.type == "text":
        return OutputFormat()
    if text.format.type == "json_object":
        return OutputFormat(kind="json_object")
    return json_schema(text.format.schema, "text.format.schema", strict=text.format.strict)
