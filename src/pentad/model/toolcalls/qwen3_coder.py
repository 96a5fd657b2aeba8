"""Tool calls as tags of function and parameter, as Qwen3-Coder writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.tagged import TaggedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Coder(TaggedCalls):
    """`<function=NAME>` and `<parameter=KEY>`, each value on lines of its own.

    Source: the chat templates of Qwen3-Coder and Qwen3.5.
    """

    name: str = "qwen3_coder"
    opening: str = "<tool_call>"
    before: str = "\n"
    between: str = "\n</tool_call>\n<tool_call>\n"
    after: str = "\n</tool_call>"
    closing: str = "</tool_call>"
    begin: str = "<function="
    name_end: str = ">"
    key_begin: str = "<parameter="
    key_end: str = ">"
    pad: str = "\n"
    value_end: str = "</parameter>"
    end: str = "</function>"
    marks: tuple[tuple[str, ...], ...] = (("<tool_call>", "<function=", "<parameter="),)
