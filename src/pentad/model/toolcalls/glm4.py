"""Tool calls as a name on a line and JSON below it, as GLM-4 writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.named import NamedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Glm4(NamedCalls):
    """The whole answer is one call, without any mark; the model then waits for what it observes.

    Source: the chat templates of GLM-4-9B-Chat and GLM-4-0414.
    """

    name: str = "glm4"
    opening: str = ""
    separator: str = "\n"
    parallel: bool = False
    marks: tuple[tuple[str, ...], ...] = (("<|observation|>", "[gMASK]<sop>"),)
