"""Tool calls between control tokens, arguments in a code fence, as DeepSeek V3 and R1 write them."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.named import NamedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeekV3(NamedCalls):
    """The type `function`, the name, and the arguments in a fence of JSON.

    Source: the chat templates of DeepSeek V3 and R1.
    """

    name: str = "deepseek_v3"
    opening: str = "<｜tool▁calls▁begin｜>"
    between: str = "\n"
    after: str = "<｜tool▁calls▁end｜>"
    closing: str = "<｜tool▁calls▁end｜>"
    begin: str = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>"
    separator: str = "\n```json\n"
    end: str = "\n```<｜tool▁call▁end｜>"
    marks: tuple[tuple[str, ...], ...] = (("<｜tool▁calls▁begin｜>", "```json"),)
