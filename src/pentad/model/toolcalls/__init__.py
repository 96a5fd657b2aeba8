"""How models write tool calls, and the one parser that reads them."""

from __future__ import annotations

from pentad import registry
from pentad.model.toolcalls.base import ToolFormat
from pentad.model.toolcalls.parser import CallParser, call_id
from pentad.types import Decision

DEFAULT = "hermes"


def choose_format(name: str, chat_template: str | None) -> tuple[ToolFormat, Decision]:
    """The format of that name; `auto` takes the first whose marks the chat template holds, else Hermes.

    Raises UnknownName for a name that is not registered.
    """
    names = registry.known("tool_format")
    formats: dict[str, ToolFormat] = {known: registry.load("tool_format", known)() for known in names}
    if name != "auto":
        chosen: ToolFormat = registry.load("tool_format", name)()
    else:
        template = chat_template or ""
        marked = [f for f in formats.values() if any(all(m in template for m in ms) for ms in f.marks)]
        chosen = marked[0] if marked else formats[DEFAULT]
    return chosen, Decision(
        layer="model",
        policy=name,
        subject="tool_format",
        chosen=chosen.name,
        candidates=tuple((known, None) for known in names),
    )


__all__ = ["CallParser", "ToolFormat", "call_id", "choose_format"]
