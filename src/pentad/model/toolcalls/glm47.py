"""Tool calls as a name and pairs of tags without line breaks, as GLM writes them since 4.7."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.glm45 import Glm45


@dataclass(frozen=True, slots=True, kw_only=True)
class Glm47(Glm45):
    """As GLM-4.5's, on one line.

    Source: the chat template of GLM-4.7.
    """

    name: str = "glm47"
    between: str = "<tool_call>"
    key_end: str = "</arg_key><arg_value>"
    space: str = ""
    marks: tuple[tuple[str, ...], ...] = (("<arg_key>",),)
