"""Tool calls as a JSON array behind a control token, as Mistral's models write them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.objects import ObjectCalls

INSTRUCTION = """You can call functions. They are described here, one per line:
{tools}

To call functions, answer with [TOOL_CALLS] and a JSON array of this form:
[TOOL_CALLS][{"name": "function-name", "arguments": {"argument": "value"}}]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistral(ObjectCalls):
    """`[TOOL_CALLS]`, a control token in these models, then an array of objects.

    Source: the chat template of Mistral 7B Instruct v0.3.
    """

    name: str = "mistral"
    opening: str = "[TOOL_CALLS]"
    before: str = "["
    between: str = ", "
    after: str = "]"
    closing: str = "]"
    skips: str = "[,"
    marks: tuple[tuple[str, ...], ...] = (("[TOOL_CALLS]",),)
    instruction: str = INSTRUCTION
