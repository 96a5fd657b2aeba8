"""Tool calls between control tokens, texts between quote tokens, as Gemma 4 writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.keyed import KeyedCalls
from pentad.model.toolcalls.literals import GEMMA, Notation


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma(KeyedCalls):
    """`call:name{key:value}`. Texts have no escapes and keys no quotes.

    Source: the chat template of Gemma 4.
    """

    name: str = "gemma"
    opening: str = "<|tool_call>"
    between: str = "<tool_call|><|tool_call>"
    after: str = "<tool_call|>"
    closing: str = "<tool_call|>"
    begin: str = "call:"
    brackets: str = "{}"
    assign: str = ":"
    notation: Notation = GEMMA
    marks: tuple[tuple[str, ...], ...] = (("<|tool_call>", "call:"),)
