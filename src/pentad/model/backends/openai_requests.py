"""A Request as the fields of an OpenAI chat or text completion."""

from __future__ import annotations

import binascii
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from pentad.content import Part
from pentad.errors import Incompatible
from pentad.model.toolcalls.base import described
from pentad.types import Decision, Message, OutputFormat, Request, Sampling, ToolChoice

if TYPE_CHECKING:
    from pentad.model.backends.endpoint import Endpoint
    from pentad.model.backends.engines import Engine


def request_fields(request: Request, endpoint: Endpoint) -> tuple[dict[str, Any], tuple[Decision, ...]]:
    """The request's body, and what was done about wishes that the endpoint cannot be told.

    Raises Incompatible for what neither OpenAI's fields nor the endpoint's further ones can say.
    """
    if request.token_ids is not None:
        raise Incompatible(
            f"endpoint model {endpoint.model!r} takes no token ids as a prompt",
            hint="send text or messages",
            param="prompt",
        )
    for part in request.media:
        if part.kind not in endpoint.media:
            raise Incompatible(
                f"endpoint model {endpoint.model!r} is not known to take the {part.told}",
                hint=f"add {part.kind} to `media` of this model in `backends` of the settings file",
                param="messages",
            )
    sampling = request.sampling
    if sampling.prompt_logprobs is not None or sampling.max_tokens == 0:
        asked = "max_tokens 0" if sampling.prompt_logprobs is None else "echo with logprobs"
        raise Incompatible(
            f"endpoint model {endpoint.model!r} only generates; {asked} needs a model on this machine",
            hint="choose a local model",
            param="model",
        )
    if request.text is not None and sampling.logprobs is not None:
        raise Incompatible(
            f"endpoint model {endpoint.model!r} reports log probabilities in conversations only",
            hint="send `messages`, or leave `logprobs` out",
            param="logprobs",
        )
    further = _further(request)
    notes: tuple[Decision, ...] = ()
    if not endpoint.further_fields:
        notes = _unsaid(further)
        further.pop("priority", None)  # It has acted in our own queue.
    if further and not endpoint.further_fields:
        raise Incompatible(
            f"the endpoint of {endpoint.model!r} takes no {', '.join(sorted(further))}",
            hint="leave that out, or set vllm_fields: true for this model in `backends` of the settings file",
            param=next(iter(sorted(further))),
        )
    fields: dict[str, Any] = {
        "model": endpoint.model,
        "stream": True,
    }
    if endpoint.engine.stream_usage:
        fields["stream_options"] = {"include_usage": True}
    # What the caller left open is the endpoint's to choose: it may know what its model needs.
    fields |= {
        name: getattr(sampling, name) for name in ("temperature", "top_p") if name not in sampling.left_open
    }
    fields |= _optional(sampling, endpoint.max_tokens_field)
    if request.text is not None:
        fields["prompt"] = request.text
        if endpoint.max_tokens_field in fields:
            fields["max_tokens"] = fields.pop(endpoint.max_tokens_field)
    else:
        fields["messages"] = [message_field(message) for message in request.messages or ()]
        for field, message in zip(fields["messages"], request.messages or (), strict=True):
            if message.reasoning and endpoint.further_fields:
                field["reasoning_content"] = message.reasoning
        if sampling.logprobs is not None:
            fields["logprobs"] = True
            if sampling.logprobs:
                fields["top_logprobs"] = sampling.logprobs
        fields |= _tools(request)
    fields |= _format(request.format, endpoint.engine.schema_as)
    notes += ignored_note(endpoint.engine.ignored & fields.keys(), endpoint.engine)
    if request.messages is not None and "reasoning_effort" in request.template_options:
        fields["reasoning_effort"] = request.template_options["reasoning_effort"]
    if request.continues and endpoint.further_fields:
        further |= {"continue_final_message": True, "add_generation_prompt": False}
    elif request.continues:
        notes = (*notes, _sent_as_it_is())
    return {**fields, **endpoint.extra_body, **further}, notes


def ignored_note(fields: Collection[str], engine: Engine) -> tuple[Decision, ...]:
    """What is said of fields that have no effect, since the engine knows nothing of the kind."""
    if not fields:
        return ()
    chosen = f"no effect of {', '.join(sorted(fields))}"
    return (
        Decision(
            layer="model",
            policy="endpoint",
            subject="sampling",
            chosen=chosen,
            constraint=f"engine {engine.name}",
            notice=f"{chosen}: the server, {engine.name}, cannot be told",
        ),
    )


def _sent_as_it_is() -> Decision:
    """What becomes of a last message of the assistant, which no field of OpenAI's asks to go on with."""
    chosen = "the assistant's last message was sent as it is"
    return Decision(
        layer="model",
        policy="endpoint",
        subject="prefill",
        chosen=chosen,
        constraint="vllm_fields",
        notice=f"{chosen}; whether the answer goes on with it is up to the endpoint",
    )


def _unsaid(further: dict[str, Any]) -> tuple[Decision, ...]:
    """Takes out whether and how long to think, which endpoints without fields for it decide themselves."""
    options = further.get("chat_template_kwargs", {})
    budget = further.pop("thinking_token_budget", None)
    if "enable_thinking" not in options and budget is None:
        return ()
    wish = options.pop("enable_thinking", f"at most {budget} tokens")
    if not options:
        further.pop("chat_template_kwargs", None)
    return (
        Decision(
            layer="model",
            policy="endpoint",
            subject="thinking",
            chosen="left to the endpoint",
            candidates=((f"enable_thinking: {wish}", None),),
            constraint="vllm_fields",
        ),
    )


def message_field(message: Message) -> dict[str, Any]:
    """One message in OpenAI's shape."""
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        out["name"] = message.name
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
        out["content"] = message.content or None
    if message.media:
        out["content"] = [part_field(part) for part in message.parts]
    return out


def part_field(part: Part) -> dict[str, Any]:
    """One part in OpenAI's shape."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    data = binascii.b2a_base64(part.data, newline=False).decode()
    url = f"data:{part.media_type};base64,{data}"
    match part.kind:
        case "image":
            detail = {} if part.detail is None else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": url, **detail}}
        case "audio":
            form = {"audio/mpeg": "mp3"}.get(part.media_type, part.media_type.removeprefix("audio/"))
            return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
        case "file":
            return {"type": "file", "file": {"filename": part.name or "file", "file_data": url}}


def _optional(sampling: Sampling, max_tokens_field: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if sampling.presence_penalty:
        fields["presence_penalty"] = sampling.presence_penalty
    if sampling.frequency_penalty:
        fields["frequency_penalty"] = sampling.frequency_penalty
    if sampling.logit_bias:
        fields["logit_bias"] = {str(id): bias for id, bias in sampling.logit_bias.items()}
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    if sampling.n != 1:
        fields["n"] = sampling.n
    if sampling.max_tokens is not None:
        fields[max_tokens_field] = sampling.max_tokens
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    return fields


def _further(request: Request) -> dict[str, Any]:
    """What only vLLM's fields can say."""
    sampling = request.sampling
    fields: dict[str, Any] = {}
    if sampling.top_k:
        fields["top_k"] = sampling.top_k
    if sampling.min_p:
        fields["min_p"] = sampling.min_p
    if sampling.repetition_penalty != 1.0:
        fields["repetition_penalty"] = sampling.repetition_penalty
    if sampling.min_tokens:
        fields["min_tokens"] = sampling.min_tokens
    if sampling.stop_token_ids:
        fields["stop_token_ids"] = list(sampling.stop_token_ids)
    if sampling.ignore_eos:
        fields["ignore_eos"] = True
    if request.reasoning_tokens is not None:
        fields["thinking_token_budget"] = request.reasoning_tokens
    if request.priority:
        fields["priority"] = request.priority
    if request.cache_salt:
        fields["cache_salt"] = request.cache_salt
    options = {k: v for k, v in request.template_options.items() if k != "reasoning_effort"}
    if options:
        fields["chat_template_kwargs"] = options
    if request.format.kind in ("regex", "choice", "grammar"):
        value = request.format.value
        fields["structured_outputs"] = {
            request.format.kind: list(value) if isinstance(value, tuple) else value
        }
    return fields


def _tools(request: Request) -> dict[str, Any]:
    if not request.tools:
        return {}
    fields: dict[str, Any] = {
        "tools": [described(tool) for tool in request.tools],
        "tool_choice": _tool_choice(request.tool_choice),
    }
    if not request.tool_choice.parallel:
        fields["parallel_tool_calls"] = False
    return fields


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _format(format: OutputFormat, schema_as: str) -> dict[str, Any]:
    if format.kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if format.kind == "json_schema":
        value = format.value if isinstance(format.value, Mapping) else {}
        schema = json.loads(json.dumps(value, default=dict))
        if schema_as == "json_object":
            return {"response_format": {"type": "json_object", "schema": json.dumps(schema)}}
        named: dict[str, Any] = {"name": "answer", "schema": schema}
        if format.strict is not None:
            named["strict"] = format.strict
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    return {}
