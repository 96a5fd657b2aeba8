"""Calls as the tool's name and its arguments in JSON, between marks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.model.lark import Lark, escaped
from pentad.model.toolcalls.base import Bare, Schemas, ToolFormat, spaced
from pentad.model.toolcalls.reading import StepReader, Steps
from pentad.model.toolcalls.scanner import SPACES


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCalls(ToolFormat):
    """Each call is: `begin` name `separator` JSON `end`.

    Where there is no opening mark, an answer that begins with the name of an offered tool, the separator
    and a brace is a call.
    """

    prefix: str = ""
    """Stands before the name and is no part of it."""
    id_mark: str = ""
    """Begins what stands behind the name and is no part of it, as an id; it may be a control token."""
    id_pattern: str = ""
    """A regular expression for what follows `id_mark` there, as an index."""
    id_text: str = ""
    """What is written there; `{index}` becomes the place of the call in its turn."""
    separator: str
    end: str = ""

    def texts(self) -> Iterable[str]:
        base = (self.opening, self.before, self.between, self.after, self.closing, self.begin)
        return (*base, self.id_mark, self.separator, self.end)

    def write_call(self, name: str, arguments: str, index: int) -> str:
        id_text = self.id_text.replace("{index}", str(index))
        return f"{self.begin}{self.prefix}{name}{id_text}{self.separator}{spaced(arguments)}{self.end}"

    def call_grammar(self, name: str, schema: Mapping[str, Any], lark: Lark) -> str:
        id_rule = f"{lark.literal(self.id_mark)} /{self.id_pattern}/" if self.id_pattern else ""
        head, tail = lark.literal(self.begin + self.prefix + name), lark.literal(self.separator)
        return f"{head} {id_rule} {tail} {lark.json(schema)} {lark.literal(self.end)}"

    def reader(self, schemas: Schemas) -> StepReader:
        del schemas
        return _NamedReader(self)

    def named(self, text: str) -> str:
        """The name within what stands before the separator."""
        text = text.strip(SPACES).removeprefix(self.prefix)
        if not self.id_pattern:
            return text
        return re.sub(rf"{re.escape(self.id_mark)}(?:{self.id_pattern})\Z", "", text)

    def bare(self, tools: Sequence[tuple[str, Mapping[str, Any]]], lark: Lark) -> Bare | None:
        if self.opening:
            return None
        listed = "|".join(escaped(name) for name, _ in tools)
        forms = (f"{json.dumps(name + self.separator)} {lark.json(schema)}" for name, schema in tools)
        excluded = rf"[ \t\r\n]*({listed}){escaped(self.separator)}\{{"
        return Bare(excluded=excluded, body=" | ".join(forms))

    def bare_start(self, text: str, names: frozenset[str]) -> int | None:
        if self.opening:
            return -1
        at = len(text) - len(text.lstrip(SPACES))
        name, found, rest = text[at:].partition(self.separator)
        if found and name in names:
            return None if not rest else at if rest == "{" else -1
        whole = text[at:]
        return None if any((one + self.separator).startswith(whole) for one in names) else -1


class _NamedReader(StepReader):
    def __init__(self, format: NamedCalls) -> None:
        self._format = format
        super().__init__()

    def steps(self) -> Steps[None]:
        format = self._format
        self.name = format.named((yield from self.until(format.separator)))
        char = yield from self.past_space()
        self.give_back(char)
        yield from self.json_value()
        if format.end:
            yield from self.expect(format.end)
