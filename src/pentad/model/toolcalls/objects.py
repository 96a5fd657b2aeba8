"""Calls as JSON objects: `{"name": NAME, "arguments": {...}}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.model.lark import Lark, escaped
from pentad.model.toolcalls.base import Bare, CallReader, Schemas, ToolFormat, spaced, spelled
from pentad.model.toolcalls.scanner import SPACES, CallScanner

FENCE = "```"
_S = r"[ \t\r\n]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectCalls(ToolFormat):
    """Each call is an object with the tool's name and its arguments.

    Many models leave the opening mark out now and then, so an answer that is just such an object, perhaps
    in a code fence or with its braces doubled, is a call too if it begins with the name of an offered tool.
    """

    begin: str = "{"
    name_key: str = "name"
    arguments_key: str = "arguments"

    def start_of(self, name: str) -> str:
        """The object up to where the arguments begin."""
        return f'{{"{self.name_key}": {spelled(name)}, "{self.arguments_key}": '

    def write_call(self, name: str, arguments: str, index: int) -> str:
        del index
        return self.start_of(name) + spaced(arguments) + "}"

    def call_grammar(self, name: str, schema: Mapping[str, Any], lark: Lark) -> str:
        return f'{lark.literal(self.start_of(name))} {lark.json(schema)} "}}"'

    def reader(self, schemas: Schemas) -> CallReader:
        return CallScanner(frozenset(spelled(name) for name in schemas))

    @property
    def bare_skips(self) -> str:
        return self.skips + "`"

    def bare(self, tools: Sequence[tuple[str, Mapping[str, Any]]], lark: Lark) -> Bare | None:
        """See ToolFormat. The parser reads the same: bare, in a code fence, or with its braces doubled."""
        start = rf'{_S}(```(json)?{_S})?\{{{_S}(\{{{_S})?"{self.name_key}"{_S}:{_S}'
        listed = [escaped(spelled(name)) for name, _ in tools]
        forms = []
        for (_, schema), name in zip(tools, listed, strict=True):
            key = escaped(spelled(self.arguments_key))
            forms.append(f"/{start}{name}/ /{_S},{_S}{key}{_S}:{_S}/ {lark.json(schema)}")
        # Where calls have no opening, an object with any name is one; elsewhere it may be an answer.
        named = f"({'|'.join(listed)})" if self.opening else '"'
        return Bare(excluded=start + named, body=rf"({' | '.join(forms)}) /({_S}\}}){{1,2}}({_S}```)?/")

    def bare_start(self, text: str, names: frozenset[str]) -> int | None:
        del names  # the reader knows them
        before = text[:-1].strip(SPACES)
        if text[-1] == "{" and before in ("", FENCE, FENCE + "json"):
            return len(text)
        return None if (FENCE + "json").startswith(text.strip(SPACES)) else -1
