"""Tool calls between control tokens, as DeepSeek writes them since V3.1."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.model.toolcalls.named import NamedCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSeekV31(NamedCalls):
    """The name and the arguments, with nothing but control tokens between them.

    Source: the chat template of DeepSeek V3.1.
    """

    name: str = "deepseek_v31"
    opening: str = "<｜tool▁calls▁begin｜>"
    between: str = ""
    after: str = "<｜tool▁calls▁end｜>"
    closing: str = "<｜tool▁calls▁end｜>"
    begin: str = "<｜tool▁call▁begin｜>"
    separator: str = "<｜tool▁sep｜>"
    end: str = "<｜tool▁call▁end｜>"
    marks: tuple[tuple[str, ...], ...] = (("<｜tool▁calls▁begin｜>",),)
