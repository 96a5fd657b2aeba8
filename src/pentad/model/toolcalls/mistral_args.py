"""Tool calls as a control token, a name and JSON, as Mistral's models write them since 2025."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.named import NamedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class MistralArgs(NamedCalls):
    """`[TOOL_CALLS]name[ARGS]{...}`, once more from the first mark on for each further call.

    Source: the chat templates of Devstral, Magistral 1.2 and Ministral 3.
    """

    name: str = "mistral_args"
    opening: str = "[TOOL_CALLS]"
    between: str = "[TOOL_CALLS]"
    separator: str = "[ARGS]"
    marks: tuple[tuple[str, ...], ...] = (("[TOOL_CALLS]", "[ARGS]"),)
