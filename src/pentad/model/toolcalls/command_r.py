"""Tool calls as a JSON array between action tokens, as Command R writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.model.lark import Lark
from pentad.model.toolcalls.base import Bare, spaced, spelled
from pentad.model.toolcalls.objects import ObjectCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandR(ObjectCalls):
    """Objects with an id, a `tool_name` and `parameters`. The opening token alone makes a call.

    Source: the chat templates of Command R7B and Command A.
    """

    name: str = "command_r"
    opening: str = "<|START_ACTION|>"
    before: str = "[\n    "
    between: str = ",\n    "
    after: str = "\n]<|END_ACTION|>"
    closing: str = "]<|END_ACTION|>"
    skips: str = "[,"
    name_key: str = "tool_name"
    arguments_key: str = "parameters"
    marks: tuple[tuple[str, ...], ...] = (("<|START_ACTION|>",),)

    def start_of(self, name: str) -> str:
        return f'"tool_name": {spelled(name)}, "parameters": '

    def write_call(self, name: str, arguments: str, index: int) -> str:
        return f'{{"tool_call_id": "{index}", {self.start_of(name)}{spaced(arguments)}}}'

    def call_grammar(self, name: str, schema: Mapping[str, Any], lark: Lark) -> str:
        start = lark.literal(f'", {self.start_of(name)}')
        return rf'"{{\"tool_call_id\": \"" /[0-9]{{1,3}}/ {start} {lark.json(schema)} "}}"'

    def bare(self, tools: Sequence[tuple[str, Mapping[str, Any]]], lark: Lark) -> Bare | None:
        del tools, lark
        return None

    def bare_start(self, text: str, names: frozenset[str]) -> int | None:
        del text, names
        return -1
