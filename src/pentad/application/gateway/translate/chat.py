"""A ChatRequest as a Request."""

from __future__ import annotations

from collections.abc import Sequence

from pentad.application.gateway.body import check_free_form
from pentad.application.gateway.schemas.chat import ChatMessage, ChatRequest, FunctionCall
from pentad.application.gateway.translate.content import MediaReader, text_of
from pentad.application.gateway.translate.formats import output_format
from pentad.application.gateway.translate.options import sampling
from pentad.application.gateway.translate.thinking import chat_wishes
from pentad.application.gateway.translate.tools import chat_tools
from pentad.errors import InvalidRequest
from pentad.types import Message, Request, RunContext, Sampling, ToolCall


def chat_request(
    body: ChatRequest, *, request_id: str, tenant: str, context: RunContext, media: MediaReader
) -> Request:
    """The one request that goes down. Raises InvalidRequest naming the field at fault."""
    tools, choice = chat_tools(body)
    turns = messages(body.messages, media)
    options = dict(body.chat_template_kwargs or {})
    check_free_form(options, "chat_template_kwargs")
    budget = chat_wishes(body, options)
    goes_on = body.continue_final_message is not False and not body.add_generation_prompt
    return Request(
        id=request_id,
        model=body.model or "",
        messages=turns,
        continues=goes_on and ends_open(turns),
        tools=tools,
        tool_choice=choice,
        format=output_format(body.response_format, body.structured_outputs),
        sampling=chat_sampling(body),
        tenant=tenant,
        cache_salt=body.cache_salt or "",
        priority=body.priority or 0,
        prediction="" if body.prediction is None else text_of(body.prediction.content, "prediction.content"),
        template_options=options,
        reasoning_tokens=budget,
        context=context,
    )


def ends_open(turns: Sequence[Message]) -> bool:
    """Whether the last turn is text of the assistant that an answer can go on with."""
    return bool(turns) and turns[-1].role == "assistant" and not turns[-1].tool_calls


def messages(wire: Sequence[ChatMessage], media: MediaReader) -> tuple[Message, ...]:
    """The turns, each with its parts."""
    turns: list[Message] = []
    for index, one in enumerate(wire):
        turns.append(_message(one, f"messages[{index}]", turns, media))
    return tuple(turns)


def _message(wire: ChatMessage, where: str, before: Sequence[Message], media: MediaReader) -> Message:
    if wire.role == "tool" and not wire.tool_call_id:
        raise InvalidRequest(
            f"{where} has role 'tool' but no tool_call_id",
            hint="give the id of the call that it answers",
            param=f"{where}.tool_call_id",
        )
    for name in ("tool_calls", "function_call"):
        if getattr(wire, name) and wire.role != "assistant":
            raise InvalidRequest(
                f"{where} has role {wire.role!r} and {name}; only 'assistant' may call tools",
                param=f"{where}.{name}",
            )
    if wire.audio is not None:
        raise InvalidRequest(
            f"{where} refers to stored audio; no audio is kept here",
            hint="send its transcript as content",
            param=f"{where}.audio",
        )
    if wire.content is None and wire.role not in ("assistant", "function"):
        raise InvalidRequest(f"{where} has no content", param=f"{where}.content")
    text, found = media.content(wire.content, f"{where}.content", alone=wire.role in ("user", "tool"))
    text = text or (wire.refusal or "")
    if wire.role == "function":
        return Message(role="tool", content=text, tool_call_id=_answered(wire, where, before))
    calls = tuple(
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in wire.tool_calls or ()
    )
    if wire.function_call is not None:
        calls = (*calls, _legacy_call(wire.function_call, len(before)))
    return Message(
        role=wire.role,
        content=text,
        name=wire.name,
        tool_calls=calls,
        tool_call_id=wire.tool_call_id if wire.role == "tool" else None,
        media=found,
        reasoning=(wire.reasoning_content or wire.reasoning or "") if wire.role == "assistant" else "",
    )


def _legacy_call(call: FunctionCall, turn: int) -> ToolCall:
    """A call from before calls had ids; its place names it."""
    return ToolCall(id=f"call_{turn}", name=call.name, arguments=call.arguments)


def _answered(wire: ChatMessage, where: str, before: Sequence[Message]) -> str:
    """The id of the latest call of the function whose result this is."""
    for turn in reversed(before):
        for call in reversed(turn.tool_calls):
            if call.name == wire.name:
                return call.id
    raise InvalidRequest(
        f"{where} is the result of function {(wire.name or '')[:64]!r}, which no turn before it calls",
        hint="send the assistant's turn with its function_call before the result",
        param=f"{where}.name",
    )


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
