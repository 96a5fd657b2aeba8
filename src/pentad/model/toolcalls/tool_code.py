"""Tool calls as lines of Python in a code block, as Gemma 3 is told to write them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.keyed import KeyedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCode(KeyedCalls):
    """A block of `tool_code` with a call on each line.

    Source: Google's guide to function calling with Gemma 3, whose chat template knows no tools.
    """

    name: str = "tool_code"
    opening: str = "```tool_code"
    before: str = "\n"
    between: str = "\n"
    after: str = "\n```"
    closing: str = "```"
    marks: tuple[tuple[str, ...], ...] = (("```tool_code",),)
