"""Tool calls as a JSON array between control tokens, as Phi-4-mini writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.objects import ObjectCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Phi4(ObjectCalls):
    """An array of objects between `<|tool_call|>` and `<|/tool_call|>`.

    Source: the chat template and the model card of Phi-4-mini-instruct.
    """

    name: str = "phi4"
    opening: str = "<|tool_call|>"
    before: str = "["
    between: str = ", "
    after: str = "]<|/tool_call|>"
    closing: str = "]<|/tool_call|>"
    skips: str = "[,"
    marks: tuple[tuple[str, ...], ...] = (("<|tool|>", "<|/tool|>"),)
