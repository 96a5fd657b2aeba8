"""Calls as in a programming language: the name, and in brackets each argument's key and value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.model.lark import Lark, escaped
from pentad.model.toolcalls.base import Bare, Schemas, ToolFormat, pairs_of
from pentad.model.toolcalls.literal_grammar import LiteralGrammar
from pentad.model.toolcalls.literals import PYTHON, LiteralReader, Notation, is_plain
from pentad.model.toolcalls.reading import Steps
from pentad.model.toolcalls.scanner import SPACES


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedCalls(ToolFormat):
    """Each call is: `begin` name `brackets[0]` key `assign` value, and so on, `brackets[1]`.

    Where calls stand in a list (`before` is a bracket), an answer that begins with such a list of offered
    tools is calls too, without an opening mark.
    """

    brackets: str = "()"
    assign: str = "="
    notation: Notation = PYTHON

    def texts(self) -> Iterable[str]:
        base = (self.opening, self.before, self.between, self.after, self.closing, self.begin)
        return (*base, self.notation.quote)

    def write_call(self, name: str, arguments: str, index: int) -> str:
        del index
        pairs = pairs_of(arguments)
        plain = self.notation.quote != ""
        said = [f"{k}{self.assign}{self.notation.write(v)}" for k, v in pairs.items() if plain or is_plain(k)]
        said += [
            f"**{self.notation.write({k: v})}" for k, v in pairs.items() if not plain and not is_plain(k)
        ]
        return f"{self.begin}{name}{self.brackets[0]}{self.notation.comma.join(said)}{self.brackets[1]}"

    def call_grammar(self, name: str, schema: Mapping[str, Any], lark: Lark) -> str:
        head = f"{lark.literal(self.begin)} {json.dumps(name + self.brackets[0])}"
        return f"{head} {self._arguments(schema, lark)}"

    def _arguments(self, schema: Mapping[str, Any], lark: Lark) -> str:
        grammar = LiteralGrammar(self.notation, lark, schema)
        members = grammar.members(schema, ("", self.assign), lark.literal(self.notation.comma))
        return f"{members} {json.dumps(self.brackets[1])}"

    def reader(self, schemas: Schemas) -> LiteralReader:
        del schemas
        return _KeyedReader(self)

    @property
    def bare_closing(self) -> str:
        return "]"

    def bare(self, tools: Sequence[tuple[str, Mapping[str, Any]]], lark: Lark) -> Bare | None:
        if self.before != "[":
            return None
        listed = "|".join(escaped(name) for name, _ in tools)
        # One literal up to where the text rule gives up: of two that are possible, the longer holds.
        forms = (f"{json.dumps(f'[{name}(')} {self._arguments(schema, lark)}" for name, schema in tools)
        more = f"({lark.literal(self.between)} call)*" if self.between else ""
        return Bare(excluded=rf"[ \t\r\n]*\[[ \t\r\n]*({listed})\(", body=f'({" | ".join(forms)}) {more} "]"')

    def bare_start(self, text: str, names: frozenset[str]) -> int | None:
        if self.before != "[":
            return -1
        rest = text.lstrip(SPACES)
        if rest and rest[0] != "[":
            return -1
        called = rest[1:].lstrip(SPACES)
        if called.endswith(self.brackets[0]) and called[:-1] in names:
            return len(text) - len(called)
        return (
            None if not called or any((name + self.brackets[0]).startswith(called) for name in names) else -1
        )


class _KeyedReader(LiteralReader):
    def __init__(self, format: KeyedCalls) -> None:
        self._format = format
        super().__init__(format.notation)

    def steps(self) -> Steps[None]:
        brackets = self._format.brackets
        self.name = (yield from self.until(brackets[0])).strip(SPACES)
        self.emit("{")
        yield from self.members(brackets[1], self._format.assign, "")
        self.emit("}")
