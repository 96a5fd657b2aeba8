"""A ResponseRequest as a Request, with the stored turns that it continues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from msgspec import structs

from pentad.application.gateway.schemas.responses import (
    InputItem,
    ResponseRequest,
    ResponseToolChoice,
    TextConfig,
)
from pentad.application.gateway.translate.content import MediaReader
from pentad.application.gateway.translate.formats import json_schema
from pentad.application.gateway.translate.options import drawing
from pentad.application.gateway.translate.response_tools import ShownNames, function_tools, shown_names
from pentad.application.gateway.translate.tools import allowed_tools, named_tool, tool_choice
from pentad.errors import InvalidRequest, NotFound
from pentad.types import Message, OutputFormat, Request, RunContext, Sampling, ToolCall, ToolChoice, ToolSpec

Stored = Callable[[str], InputItem | None]
"""Finds an item of the caller's stored responses by its id."""

_KEPT = {
    "conversation": "send the whole conversation as input, or previous_response_id",
    "prompt": "send its text as instructions and input",
}
"""Fields that name what a server would keep, and what to send instead."""


def check_kept(body: ResponseRequest) -> None:
    """Raises InvalidRequest for state that is not kept here: an answer without it would be another."""
    for name, instead in _KEPT.items():
        if getattr(body, name):
            raise InvalidRequest(f"no {name} is kept here", hint=instead, param=name)


def resolved(body: ResponseRequest, stored: Stored) -> ResponseRequest:
    """The request with each reference replaced by the item that it names.

    Raises:
        NotFound: no such item is stored for this caller.
    """
    if isinstance(body.input, str):
        return body
    items = [_resolved(item, f"input[{index}]", stored) for index, item in enumerate(body.input)]
    return structs.replace(body, input=items)


def _resolved(item: InputItem, where: str, stored: Stored) -> InputItem:
    if item_type(item) != "item_reference":
        return item
    found = None if item.id is None else stored(item.id)
    if found is None:
        raise NotFound(
            f"Item with id {(item.id or '')[:80]!r} not found",
            hint="items are kept only while their response is: send the item itself",
            param=where,
        )
    return found


def item_type(item: InputItem) -> str:
    """What an item is; those without a type are messages if they have a role."""
    return item.type or ("message" if item.role is not None or item.id is None else "item_reference")


def response_request(
    body: ResponseRequest,
    *,
    request_id: str,
    tenant: str,
    context: RunContext,
    before: Sequence[Message],
    new: Sequence[Message],
    ignored: list[str],
) -> Request:
    """The one request that goes down.

    Args:
        body: as read.
        request_id: also the response's id.
        tenant: whose it is.
        context: the run that it belongs to.
        before: the stored turns that it continues, without their instructions.
        new: its own turns, as `input_messages` reads them.
        ignored: takes the names of tools that are not served.
    """
    tools, choice = _chosen(body, function_tools(body.tools or (), ignored))
    options = {}
    if body.reasoning is not None and body.reasoning.effort is not None:
        options["reasoning_effort"] = body.reasoning.effort
    first = (Message(role="system", content=body.instructions),) if body.instructions else ()
    return Request(
        id=request_id,
        model=body.model or "",
        messages=tuple(turn for turn in (*first, *before, *new) if not _is_thought_alone(turn)),
        tools=tools,
        tool_choice=choice,
        format=_format(body.text),
        sampling=Sampling(
            **drawing(temperature=body.temperature, top_p=body.top_p),
            max_tokens=body.max_output_tokens,
            fit_max_tokens=True,
            logprobs=body.top_logprobs or (0 if wants_logprobs(body) else None),
        ),
        tenant=tenant,
        template_options=options,
        context=context,
    )


def wants_logprobs(body: ResponseRequest) -> bool:
    """Whether log probabilities were asked for, which takes an entry of `include`."""
    return "message.output_text.logprobs" in (body.include or ())


def input_messages(body: ResponseRequest, media: MediaReader) -> list[Message]:
    """The new turns."""
    if isinstance(body.input, str):
        return [Message(role="user", content=body.input)]
    turns: list[Message] = []
    shown = shown_names(body.tools or ())
    for index, item in enumerate(body.input):
        _add(turns, item, f"input[{index}]", shown, media)
    return turns


def _add(turns: list[Message], item: InputItem, where: str, shown: ShownNames, media: MediaReader) -> None:
    match item_type(item):
        case "message":
            if item.role is None:
                raise InvalidRequest(f"{where} has no role", param=f"{where}.role")
            if item.content is None:
                raise InvalidRequest(f"{where} has no content", param=f"{where}.content")
            text, found = media.content(item.content, f"{where}.content", alone=item.role == "user")
            add_said(turns, Message(role=item.role, content=text, media=found))
        case "function_call":
            add_call(turns, _call(item, where, shown))
        case "function_call_output":
            if item.call_id is None or item.output is None:
                raise InvalidRequest(f"{where} needs call_id and output", param=where)
            text, found = media.content(item.output, f"{where}.output")
            turns.append(Message(role="tool", content=text, tool_call_id=item.call_id, media=found))
        case "reasoning":
            add_reasoning(turns, _thought(item))
        case kind:
            raise InvalidRequest(
                f"{where}: items of type {kind[:40]!r} are not served here",
                hint="send message, function_call, function_call_output and reasoning items",
                param=f"{where}.type",
            )


def _call(item: InputItem, where: str, shown: ShownNames) -> ToolCall:
    if item.call_id is None or item.name is None:
        raise InvalidRequest(f"{where} needs call_id and name", param=where)
    name = shown.get((item.namespace, item.name), item.name)
    return ToolCall(id=item.call_id, name=name, arguments=item.arguments or "{}")


def _thought(item: InputItem) -> str:
    """The text of a reasoning item; of its summary where it holds no more."""
    content = item.content or ""
    if not isinstance(content, str):
        content = "\n".join(part.text or "" for part in content)
    summary = [one.get("text") for one in item.summary or () if isinstance(one, dict)]
    return content or "\n".join(one for one in summary if isinstance(one, str))


def add_reasoning(turns: list[Message], text: str) -> None:
    """Adds reasoning, which stands before what it led to, as the beginning of an assistant's turn."""
    if text:
        turns.append(Message(role="assistant", reasoning=text))


def add_said(turns: list[Message], said: Message) -> None:
    """Adds a message; an assistant's goes into the turn that its reasoning began."""
    if said.role == "assistant" and turns and _is_thought_alone(turns[-1]):
        turns[-1] = replace(said, reasoning=turns[-1].reasoning)
    else:
        turns.append(said)


def _is_thought_alone(turn: Message) -> bool:
    """Whether nothing came of the reasoning: no template has a place for that."""
    return bool(turn.reasoning) and not (turn.content or turn.tool_calls or turn.media)


def add_call(turns: list[Message], call: ToolCall) -> None:
    """Adds a call to the assistant's turn that is last, or begins one."""
    if turns and turns[-1].role == "assistant":
        turns[-1] = replace(turns[-1], tool_calls=(*turns[-1].tool_calls, call))
    else:
        turns.append(Message(role="assistant", tool_calls=(call,)))


def _chosen(body: ResponseRequest, tools: tuple[ToolSpec, ...]) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    wire, parallel = body.tool_choice, body.parallel_tool_calls is not False
    if not isinstance(wire, ResponseToolChoice):
        return tools, tool_choice(wire, tools, parallel=parallel)
    if wire.type == "allowed_tools":
        names = [tool.name or "" for tool in wire.tools or () if tool.type == "function"]
        return allowed_tools(names, wire.mode or "auto", tools, parallel=parallel)
    if wire.type != "function":
        raise InvalidRequest(
            f"tool_choice of type {wire.type[:40]!r} is not served here",
            hint="choose auto, none, required, a function or allowed_tools",
            param="tool_choice",
        )
    return tools, named_tool(wire.name or "", tools, parallel=parallel)


def _format(text: TextConfig | None) -> OutputFormat:
    if text is None or text.format is None or text.format.type == "text":
        return OutputFormat()
    if text.format.type == "json_object":
        return OutputFormat(kind="json_object")
    return json_schema(text.format.schema, "text.format.schema", strict=text.format.strict)
