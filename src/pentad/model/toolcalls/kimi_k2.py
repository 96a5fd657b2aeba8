"""Tool calls between control tokens, each with an index, as Kimi K2 writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.named import NamedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class KimiK2(NamedCalls):
    """`functions.NAME:INDEX` before the arguments. The index counts the calls of the conversation.

    Source: the chat template of Kimi K2 Instruct.
    """

    name: str = "kimi_k2"
    opening: str = "<|tool_calls_section_begin|>"
    between: str = ""
    after: str = "<|tool_calls_section_end|>"
    closing: str = "<|tool_calls_section_end|>"
    begin: str = "<|tool_call_begin|>"
    prefix: str = "functions."
    id_pattern: str = ":[0-9]{1,3}"
    id_text: str = ":{index}"
    separator: str = "<|tool_call_argument_begin|>"
    end: str = "<|tool_call_end|>"
    marks: tuple[tuple[str, ...], ...] = (("<|tool_calls_section_begin|>",),)
