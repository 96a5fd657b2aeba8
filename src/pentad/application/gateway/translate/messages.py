"""Anthropic's request as a Request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from pentad.application.gateway.body import check_free_form
from pentad.application.gateway.errors import ThreadUnsupported
from pentad.application.gateway.schemas.messages import (
    Block,
    CountTokensRequest,
    DocumentSource,
    MessagesRequest,
    MessagesTool,
    MessagesToolChoice,
    OutputConfig,
    TurnMessage,
)
from pentad.application.gateway.translate.chat import ends_open
from pentad.application.gateway.translate.client_tools import FAMILIES, client_tool
from pentad.application.gateway.translate.content import MediaReader
from pentad.application.gateway.translate.formats import json_schema
from pentad.application.gateway.translate.options import drawing, stops
from pentad.application.gateway.translate.thinking import messages_wishes
from pentad.application.gateway.translate.tools import named_tool, tool_spec
from pentad.content import MediaKind, Part, joined, tagged
from pentad.errors import InvalidRequest
from pentad.types import Message, OutputFormat, Request, RunContext, Sampling, ToolCall, ToolChoice, ToolSpec

_UNREAD = frozenset({"thinking", "redacted_thinking"})
"""Blocks of earlier turns that no model here needs back."""

_KEPT = {
    "container": "run code in tools of your own",
    "mcp_servers": "connect to them yourself and declare their tools",
    "compaction": "summarize the conversation with a request of its own",
}
"""Fields that name something that the server would keep or do, and what to do instead."""


def messages_request(
    body: CountTokensRequest, *, request_id: str, tenant: str, context: RunContext, media: MediaReader
) -> Request:
    """The one request that goes down; of a MessagesRequest also how to sample.

    A last turn of the assistant is the beginning of the answer.
    """
    _check_kept(body)
    tools = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or ()))
    system = _texts(body.system, "system")
    turns = [m for i, turn in enumerate(body.messages) for m in _turn(turn, f"messages[{i}]", media)]
    first = (Message(role="system", content=system),) if system else ()
    options, budget = messages_wishes(body)
    return Request(
        id=request_id,
        model=body.model,
        messages=(*first, *turns),
        continues=ends_open(turns),
        tools=tools,
        tool_choice=_choice(body.tool_choice, tools),
        format=_format(body.output_config),
        sampling=_sampling(body) if isinstance(body, MessagesRequest) else Sampling(),
        tenant=tenant,
        template_options=options,
        reasoning_tokens=budget,
        context=context,
    )


def _check_kept(body: CountTokensRequest) -> None:
    if body.thread is not None:
        raise ThreadUnsupported(
            "threads are not kept here", hint="send the whole conversation, without thread", param="thread"
        )
    for name, instead in _KEPT.items():
        if getattr(body, name):
            raise InvalidRequest(f"{name} is not served here", hint=instead, param=name)


def _tool(tool: MessagesTool, where: str) -> ToolSpec:
    description, schema = tool.description, tool.input_schema
    if tool.type not in (None, "custom"):
        known = client_tool(tool.type)
        if known is None:
            raise InvalidRequest(
                f"{where} is of type {tool.type[:40]!r}, which runs at its vendor",
                hint=f"declare it as your own tool with input_schema; known by type: {', '.join(FAMILIES)}",
                param=f"{where}.type",
            )
        description, schema = known
    if schema is None:
        raise InvalidRequest(f"{where} has no input_schema", param=f"{where}.input_schema")
    return tool_spec(tool.name, description, schema, where)


def _turn(turn: TurnMessage, where: str, media: MediaReader) -> Iterator[Message]:
    """The messages of one turn: results of tools come before the user's words."""
    if isinstance(turn.content, str):
        yield Message(role=turn.role, content=turn.content)
        return
    parts: list[Part] = []
    calls: list[ToolCall] = []
    thoughts: list[str] = []
    for index, block in enumerate(turn.content):
        at = f"{where}.content[{index}]"
        if block.type == "tool_result" and turn.role == "user":
            yield _result(block, at, media)
        elif block.type == "tool_use" and turn.role == "assistant":
            calls.append(_call(block, at))
        elif block.type == "thinking" and turn.role == "assistant":
            thoughts.append(block.thinking or "")
        elif block.type not in _UNREAD:
            parts.append(_part(block, at, media) if turn.role == "user" else _block_text(block, at))
    if parts or calls:
        text, found = joined(parts)
        thought = "\n".join(thoughts)
        yield Message(role=turn.role, content=text, tool_calls=tuple(calls), media=found, reasoning=thought)


def _part(block: Block, where: str, media: MediaReader) -> Part:
    """A block of a user's turn, or of a tool's result."""
    source = block.source
    coded = isinstance(source, DocumentSource) and source.type in ("base64", "url", "file")
    if block.type != "image" and not (block.type == "document" and coded):
        return _block_text(block, where)
    kind: MediaKind = "image" if block.type == "image" else "file"
    at = f"{where}.source"
    if not isinstance(source, DocumentSource):
        raise InvalidRequest(f"{where} has no source", param=at)
    if source.type == "url" and source.url is not None:
        return media.url(kind, source.url, f"{at}.url", name=block.title)
    if source.type == "file" and source.file_id is not None:
        return media.stored(kind, source.file_id, f"{at}.file_id", name=block.title)
    if source.type != "base64":
        raise InvalidRequest(
            f"{at}: sources of type {source.type[:40]!r} are not served here",
            hint="send the data as a source of type base64",
            param=f"{at}.type",
        )
    if source.data is None:
        raise InvalidRequest(f"{at} has no data", param=f"{at}.data")
    return media.coded(kind, source.media_type or "", source.data, f"{at}.data", name=block.title)


def _result(block: Block, where: str, media: MediaReader) -> Message:
    if block.tool_use_id is None:
        raise InvalidRequest(f"{where} has no tool_use_id", param=f"{where}.tool_use_id")
    failed = "error: " if block.is_error else ""
    content = block.content
    blocks = () if content is None or isinstance(content, str) else content
    parts = [_part(one, f"{where}.content[{i}]", media) for i, one in enumerate(blocks)]
    text, found = joined(parts) if parts else (_texts(content, f"{where}.content"), ())
    result = Message(role="tool", content=text, tool_call_id=block.tool_use_id, media=found)
    return result.behind(failed) if failed else result


def _call(block: Block, where: str) -> ToolCall:
    if block.id is None or block.name is None:
        raise InvalidRequest(f"{where} needs id and name", param=where)
    check_free_form(block.input, f"{where}.input")
    arguments = msgspec.json.encode(block.input or {}).decode()
    return ToolCall(id=block.id, name=block.name, arguments=arguments)


def _block_text(block: Block, where: str) -> str:
    match block.type:
        case "text":
            if block.text is None:
                raise InvalidRequest(f"{where} has no text", param=f"{where}.text")
            return block.text
        case "document":
            return _document(block, where)
        case "search_result":
            found = block.source if isinstance(block.source, str) else ""
            text = _texts(block.content, f"{where}.content")
            return tagged("search_result", {"title": block.title, "source": found}, text)
    raise InvalidRequest(
        f"{where}: blocks of type {block.type[:40]!r} are not served here",
        hint="send text, image, document, search_result, tool_use and tool_result",
        param=f"{where}.type",
    )


def _document(block: Block, where: str) -> str:
    source = block.source
    if not isinstance(source, DocumentSource) or source.type not in ("text", "content"):
        kind = source.type if isinstance(source, DocumentSource) else "none"
        raise InvalidRequest(
            f"{where}.source: documents of source type {kind[:40]!r} are not served here",
            hint="send its text, as a source of type text, content or base64",
            param=f"{where}.source.type",
        )
    text = source.data if source.type == "text" else _texts(source.content, f"{where}.source.content")
    if text is None:
        raise InvalidRequest(f"{where}.source has no data", param=f"{where}.source.data")
    return tagged("document", {"title": block.title, "context": block.context}, text)


def _texts(content: str | Sequence[Block] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_block_text(block, f"{where}[{i}]") for i, block in enumerate(content))


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


def _sampling(body: MessagesRequest) -> Sampling:
    return Sampling(
        **drawing(temperature=body.temperature, top_p=body.top_p, top_k=body.top_k),
        max_tokens=body.max_tokens,
        fit_max_tokens=True,
        stop=stops(body.stop_sequences),
    )
