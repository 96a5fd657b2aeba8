"""How models think before they answer: formats, the splitter that takes reasoning apart, and its budget."""

from __future__ import annotations

from pentad import registry
from pentad.model.reasoning.base import ReasoningFormat, Splitter

NONE = "none"


def choose_reasoning(name: str, chat_template: str | None) -> ReasoningFormat | None:
    """The format of that name; `auto` takes the first whose marks the chat template holds; None for none.

    Raises UnknownName for a name that is not registered.
    """
    if name == NONE:
        return None
    if name != "auto":
        chosen: ReasoningFormat = registry.load("reasoning_format", name)
        return chosen
    template = chat_template or ""
    for known in registry.known("reasoning_format"):
        format: ReasoningFormat = registry.load("reasoning_format", known)
        if all(mark in template for mark in format.marks):
            return format
    return None


__all__ = ["NONE", "ReasoningFormat", "Splitter", "choose_reasoning"]
