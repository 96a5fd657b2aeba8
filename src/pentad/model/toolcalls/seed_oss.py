"""Tool calls as tags of function and parameter, as Seed-OSS writes them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.tagged import TaggedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedOss(TaggedCalls):
    """As Qwen3-Coder's, with a mark of its own and each value beside its tags.

    Source: the chat template of Seed-OSS.
    """

    name: str = "seed_oss"
    opening: str = "<seed:tool_call>"
    before: str = "\n"
    between: str = "\n</seed:tool_call>\n<seed:tool_call>\n"
    after: str = "\n</seed:tool_call>"
    closing: str = "</seed:tool_call>"
    begin: str = "<function="
    name_end: str = ">"
    key_begin: str = "<parameter="
    key_end: str = ">"
    value_end: str = "</parameter>"
    end: str = "</function>"
    marks: tuple[tuple[str, ...], ...] = (("<seed:tool_call>",),)
