"""Fits conversations to what a template can express. Nothing is dropped: what has no place becomes text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pentad.errors import InvalidRequest, PentadError
from pentad.json_text import parse_json
from pentad.model.template.chat import ChatTemplate
from pentad.model.template.typos import mended
from pentad.model.toolcalls.base import ToolFormat, described
from pentad.types import Message, ToolCall, ToolSpec

Row = dict[str, Any]
"""A message as templates see it."""

MAX_ARGUMENT_DEPTH = 48
"""Less than what a template is given may nest."""
SHORT_ID_CHARS = 9
"""Mistral's templates accept call ids of exactly this length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFeatures:
    """What a template can express, found out by rendering."""

    system: bool
    tools: bool
    calls: bool
    """Calls of the assistant and the answers of tools."""
    short_ids: bool = False
    """Whether it refuses call ids that are not nine characters."""
    texts: bool = True
    """Whether content may be a text."""
    parts: bool = False
    """Whether content may be a list of parts, each with its type."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A usable chat template and what it can express."""

    template: ChatTemplate
    features: TemplateFeatures
    mended: tuple[str, ...] = ()
    """What was mended in the file's template, a sentence each."""


def open_chat(
    source: str | None, special: Iterable[str], *, bos: str, eos: str, presents_tools: bool = True
) -> Chat | PentadError:
    """The template compiled and probed, or why it is unusable; such a model still completes text.

    Args:
        source: the template, if the model has one.
        special: texts of the model's control tokens.
        bos: text of the first token; eos: of the last.
        presents_tools: False where another tool format than the template's own was chosen, so that
            tools and calls go in as text even if the template could present them.
    """
    if source is None:
        return InvalidRequest("its file has no chat template")
    source, notes = mended(source)
    try:
        template = ChatTemplate(source, special=tuple(special), bos=bos, eos=eos)
    except PentadError as error:
        return error
    features = probe(template)
    if not presents_tools:
        features = replace(features, tools=False, calls=False)
    return Chat(template, features, notes)


def probe(template: ChatTemplate) -> TemplateFeatures:
    """Renders small conversations and looks what of them comes out. Costs some milliseconds, once."""
    user: Row = {"role": "user", "content": "zq-user"}
    system: Row = {"role": "system", "content": "zq-system"}
    tool = described(ToolSpec(name="zq_tool", description="zq-description"))

    def rendered(messages: Sequence[Row], tools: Sequence[Row] | None = None) -> str:
        try:
            return "".join(segment.text for segment in template.render(messages, tools))
        except InvalidRequest:
            return ""

    texts = "zq-user" in rendered([user])
    listed = rendered([{**user, "content": in_parts("zq-user")}])
    parts = "zq-user" in listed and "'type'" not in listed and '"type"' not in listed

    def shows(words: Iterable[str], messages: Sequence[Row], tools: Sequence[Row] | None = None) -> bool:
        if parts and not texts:
            messages = [{**row, "content": in_parts(row["content"])} for row in messages]
        text = rendered(messages, tools)
        return all(word in text for word in words)

    def calls(id: str) -> bool:
        call = {
            "id": id,
            "type": "function",
            "function": {"name": "zq_tool", "arguments": {"zq": "zq-value"}},
        }
        turn: list[Row] = [
            user,
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "zq-result", "name": "zq_tool", "tool_call_id": id},
        ]
        return shows(["zq_tool", "zq-value", "zq-result"], turn)

    long_ids = calls("call_0123456789abcdef01234567")
    return TemplateFeatures(
        system=shows(["zq-system", "zq-user"], [system, user]),
        tools=shows(["zq_tool", "zq-description", "zq-user"], [user], [tool]),
        calls=long_ids or calls("zq3456789"),
        short_ids=not long_ids and calls("zq3456789"),
        texts=texts or not parts,
        parts=parts,
    )


def in_parts(text: str) -> list[Row]:
    """A text as the one part of a content that is a list."""
    return [{"type": "text", "text": text}]


def adapt(
    messages: Sequence[Message], tools: Sequence[ToolSpec], features: TemplateFeatures, format: ToolFormat
) -> tuple[list[Row], list[Row] | None]:
    """Messages and tools as this template can express them.

    - `developer` is `system`;
    - tools that the template cannot present go into the system message, with how to call them;
    - calls and results that it cannot present become the format's text and a user turn;
    - a system message that it cannot present goes in front of the first user turn.

    Returns:
        The rows, and the tools if the template presents them itself.
    """
    rows = [_row(message) for message in messages]
    if not (features.calls and (features.tools or not tools)):
        rows = _calls_as_text(messages, rows, format)
    elif features.short_ids:
        rows = [_with_short_ids(row) for row in rows]
    native = [described(tool) for tool in tools] if tools and features.tools and features.calls else None
    if tools and native is None:
        rows = _with_system(rows, format.prompt(tools))
    if not features.system:
        rows = _system_into_user(rows)
    return rows, native


def _row(message: Message) -> Row:
    row: Row = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.content,
    }
    if message.name is not None:
        row["name"] = message.name
    if message.reasoning:  # under every name that templates look for
        row |= dict.fromkeys(("reasoning_content", "reasoning", "thinking"), message.reasoning)
    if message.tool_calls:
        row["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row


def _call(call: ToolCall) -> Row:
    arguments: Any = call.arguments
    with contextlib.suppress(ValueError):  # a call that was cut off, or is no data, stays its text
        arguments = parse_json(call.arguments or "{}", depth=MAX_ARGUMENT_DEPTH)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _calls_as_text(messages: Sequence[Message], rows: Sequence[Row], format: ToolFormat) -> list[Row]:
    out: list[Row] = []
    for message, row in zip(messages, rows, strict=True):
        if message.tool_calls:
            calls = format.write_calls(message.tool_calls)
            text = f"{message.content}\n{calls}" if message.content else calls
            out.append({"role": "assistant", "content": text})
        elif message.role == "tool":
            response = f"<tool_response>\n{message.content}\n</tool_response>"
            if out and out[-1].get("results"):
                out[-1]["content"] += "\n" + response
            else:
                out.append({"role": "user", "content": response, "results": True})
        else:
            out.append(row)
    return [{key: value for key, value in row.items() if key != "results"} for row in out]


def _with_system(rows: list[Row], text: str) -> list[Row]:
    if rows and rows[0]["role"] == "system":
        first = {**rows[0], "content": f"{rows[0]['content']}\n\n{text}"}
        return [first, *rows[1:]]
    return [{"role": "system", "content": text}, *rows]


def _system_into_user(rows: list[Row]) -> list[Row]:
    told = "\n\n".join(row["content"] for row in rows if row["role"] == "system")
    rest = [row for row in rows if row["role"] != "system"]
    if not told:
        return rest
    first = next((i for i, row in enumerate(rest) if row["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": told}, *rest]
    merged = {**rest[first], "content": f"{told}\n\n{rest[first]['content']}"}
    return [*rest[:first], merged, *rest[first + 1 :]]


def _with_short_ids(row: Row) -> Row:
    def short(id: str) -> str:
        plain = "".join(char for char in id if char.isalnum())
        return plain[-SHORT_ID_CHARS:].rjust(SHORT_ID_CHARS, "0")

    out = dict(row)
    if "tool_call_id" in out:
        out["tool_call_id"] = short(out["tool_call_id"])
    if "tool_calls" in out:
        calls: list[Mapping[str, Any]] = out["tool_calls"]
        out["tool_calls"] = [{**call, "id": short(call["id"])} for call in calls]
    return out
