"""Tool calls as a name and pairs of tags, as GLM writes them since 4.5."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.tagged import TaggedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Glm45(TaggedCalls):
    """The name right behind the mark, then `<arg_key>` and `<arg_value>` for each argument.

    Source: the chat template of GLM-4.5.
    """

    name: str = "glm45"
    opening: str = "<tool_call>"
    between: str = "\n<tool_call>"
    name_end: str = ""
    key_begin: str = "<arg_key>"
    key_end: str = "</arg_key>\n<arg_value>"
    value_end: str = "</arg_value>"
    end: str = "</tool_call>"
    marks: tuple[tuple[str, ...], ...] = (("<arg_key>", "</arg_key>\n"), ("<arg_key>", "</arg_key>\\n"))
