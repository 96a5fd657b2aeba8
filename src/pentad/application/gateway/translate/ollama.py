"""Ollama's requests as a Request."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from pentad.application.gateway.schemas.ollama import (
    KeepAlive,
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaMessage,
    OllamaOptions,
    OllamaRequest,
)
from pentad.application.gateway.translate.chat import ends_open
from pentad.application.gateway.translate.content import MediaReader
from pentad.application.gateway.translate.formats import json_schema
from pentad.application.gateway.translate.options import drawing, stops
from pentad.application.gateway.translate.tools import function_specs
from pentad.content import joined
from pentad.errors import InvalidRequest
from pentad.types import Message, OutputFormat, Request, RunContext, Sampling, ToolCall, ToolChoice

_SEED_MASK: Final = 2**63 - 1
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def chat_request(
    body: OllamaChatRequest, *, request_id: str, tenant: str, context: RunContext, media: MediaReader
) -> Request:
    """The one request that goes down. Raises InvalidRequest naming the field at fault."""
    turns: list[Message] = []
    for index, one in enumerate(body.messages):
        turns.append(_message(one, f"messages[{index}]", turns, media))
    tools = function_specs([tool.function for tool in body.tools or ()], "tools[{}]")
    return Request(
        id=request_id,
        messages=tuple(turns),
        continues=ends_open(turns),
        tools=tools,
        tool_choice=ToolChoice(),
        **_shared(body, tenant, context),
    )


def generate_request(
    body: OllamaGenerateRequest, *, request_id: str, tenant: str, context: RunContext, media: MediaReader
) -> Request:
    """The one request that goes down: a turn of a user, or with `raw` a bare text."""
    if body.suffix:
        raise InvalidRequest(
            "suffix: text between two others is not filled in here",
            hint="leave it out, or send a prompt in the model's own form with raw",
            param="suffix",
        )
    shared = _shared(body, tenant, context)
    if body.raw:
        if body.images or body.system:
            raise InvalidRequest("raw goes with neither images nor system", hint="leave raw out", param="raw")
        return Request(id=request_id, text=body.prompt, **shared)
    wire = OllamaMessage(role="user", content=body.prompt, images=body.images)
    user = _message(wire, "the prompt", [], media)
    first = (Message(role="system", content=body.system),) if body.system else ()
    return Request(id=request_id, messages=(*first, user), **shared)


def keep_alive_s(value: KeepAlive) -> float | None:
    """Seconds that a model stays loaded; None for ever. Raises InvalidRequest."""
    if isinstance(value, str):
        sign, text = (-1, value[1:]) if value.startswith("-") else (1, value)
        parts = _TIME.findall(text)
        if re.fullmatch(r"\d+(\.\d+)?", text):
            value = sign * float(text)
        elif parts and "".join(number + unit for number, unit in parts) == text:
            value = sign * sum(float(number) * _UNITS[unit] for number, unit in parts)
        else:
            raise InvalidRequest(
                f"keep_alive is {value!r}",
                hint="write seconds, or a time like 5m or 1h30m",
                param="keep_alive",
            )
    return None if value < 0 else value


def _shared(body: OllamaRequest, tenant: str, context: RunContext) -> dict[str, Any]:
    return {
        "model": body.model,
        "format": _format(body),
        "sampling": _sampling(body.options or OllamaOptions()),
        "tenant": tenant,
        "template_options": _thinking(body),
        "context": context,
    }


def _format(body: OllamaRequest) -> OutputFormat:
    if not body.format:
        return OutputFormat()
    return json_schema(body.format if isinstance(body.format, dict) else None, "format")


def _thinking(body: OllamaRequest) -> dict[str, Any]:
    if body.think is None:
        return {}
    if isinstance(body.think, str):
        return {"enable_thinking": True, "reasoning_effort": body.think}
    return {"enable_thinking": body.think}


def _sampling(options: OllamaOptions) -> Sampling:
    most = options.num_predict
    return Sampling(
        **drawing(
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            min_p=options.min_p,
            repetition_penalty=options.repeat_penalty,
        ),
        presence_penalty=options.presence_penalty or 0.0,
        frequency_penalty=options.frequency_penalty or 0.0,
        seed=None if options.seed is None else options.seed & _SEED_MASK,
        max_tokens=None if most is None or most < 0 else most,
        fit_max_tokens=True,
        stop=stops(options.stop),
    )


def _message(wire: OllamaMessage, where: str, before: list[Message], media: MediaReader) -> Message:
    if wire.tool_calls and wire.role != "assistant":
        raise InvalidRequest(
            f"{where} has role {wire.role!r} and tool_calls; only 'assistant' may call tools",
            param=f"{where}.tool_calls",
        )
    if wire.images and wire.role not in ("user", "tool"):
        raise InvalidRequest(
            f"{where} has role {wire.role!r} and images",
            hint="send them in a message of role user",
            param=f"{where}.images",
        )
    images = [
        media.coded("image", "", one, f"{where}.images[{i}]") for i, one in enumerate(wire.images or ())
    ]
    text, found = joined([*images, wire.content]) if images else (wire.content, ())
    calls = tuple(
        ToolCall(
            id=f"call_{len(before)}_{index}",
            name=call.function.name,
            arguments=msgspec.json.encode(call.function.arguments).decode(),
        )
        for index, call in enumerate(wire.tool_calls or ())
    )
    return Message(
        role=wire.role,
        content=text,
        tool_calls=calls,
        tool_call_id=_answered(wire, before) if wire.role == "tool" else None,
        media=found,
    )


def _answered(wire: OllamaMessage, before: list[Message]) -> str:
    """The call that a result belongs to: the first open one of that name, else the first open one."""
    if wire.tool_call_id:
        return wire.tool_call_id
    done = {turn.tool_call_id for turn in before if turn.role == "tool"}
    calls = [call for turn in before for call in turn.tool_calls if call.id not in done]
    named = [call for call in calls if call.name == wire.tool_name]
    return next((call.id for call in named or calls), f"call_{len(before)}")
