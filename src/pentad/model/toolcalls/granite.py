"""Tool calls as a JSON array behind a control token, as Granite 3 writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.objects import ObjectCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Granite(ObjectCalls):
    """`<|tool_call|>` and an array of objects. Granite 4 writes as Hermes does.

    Source: the chat templates of Granite 3.0 to 3.3.
    """

    name: str = "granite"
    opening: str = "<|tool_call|>"
    before: str = "["
    between: str = ", "
    after: str = "]"
    closing: str = "]"
    skips: str = "[,"
    marks: tuple[tuple[str, ...], ...] = (("<|tool_call|>", "<|start_of_role|>"),)
