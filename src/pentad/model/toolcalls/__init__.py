"""How models write tool calls, and the one parser that reads them."""

from __future__ import annotations

from pentad import registry
from pentad.model.speech import speech_of
from pentad.model.toolcalls.base import ToolFormat
from pentad.model.toolcalls.parser import CallParser, call_id
from pentad.types import Decision

DEFAULT = "hermes"


def choose_format(name: str, chat_template: str | None, family: str = "") -> tuple[ToolFormat, Decision]:
    """The format of that name; `auto` takes the first whose marks the chat template holds.

    A template without such marks presents no tools, so that the prompt tells the format: the family's where
    the template has the turns of the family, else Hermes, which small models learn from the prompt alone.

    Args:
        name: registered, or `auto`.
        chat_template: of the model, if it has one.
        family: of the model, as its file names it; empty where that is not known.

    Raises UnknownName for a name that is not registered.
    """
    names = registry.known("tool_format")
    formats: dict[str, ToolFormat] = {known: registry.load("tool_format", known)() for known in names}
    if name != "auto":
        chosen: ToolFormat = registry.load("tool_format", name)()
    else:
        template = chat_template or ""
        marked = [f for f in formats.values() if any(all(m in template for m in ms) for ms in f.marks)]
        speech = speech_of(family)
        own = speech is not None and speech.turn and speech.turn in template
        chosen = marked[0] if marked else formats[speech.tools if speech and own else DEFAULT]
    return chosen, Decision(
        layer="model",
        policy=name,
        subject="tool_format",
        chosen=chosen.name,
        candidates=tuple((known, None) for known in names),
    )


__all__ = ["CallParser", "ToolFormat", "call_id", "choose_format"]
