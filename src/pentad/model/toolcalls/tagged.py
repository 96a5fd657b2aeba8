"""Calls as tags: the name, then each argument's key and value. Texts stand there without quotes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pentad.model.lark import Lark, escaped
from pentad.model.toolcalls.base import Schemas, ToolFormat, pairs_of
from pentad.model.toolcalls.reading import Malformed, StepReader, Steps
from pentad.model.toolcalls.scanner import WHITESPACE
from pentad.model.toolcalls.schema_types import (
    kind_of,
    listed_values,
    member_schema,
    resolved,
    rooted,
    text_branches,
)
from pentad.model.toolcalls.text_terminals import text_terminal

WORDS = frozenset({"true", "false", "null"})
JSON_STARTS = '{["-0123456789 \t\r\n'
"""Where a value may be a text or not, what begins so is JSON; so are the three words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedCalls(ToolFormat):
    """Each call is: `begin` name `name_end`, the arguments, `end`.

    An argument is: `key_begin` key `key_end` value `value_end`.
    A value whose schema admits nothing but texts is the text itself; one that admits none is JSON; where
    both are possible, what begins like JSON is JSON. A text that holds `value_end` cannot be written.
    """

    name_end: str
    key_begin: str
    key_end: str
    pad: str = ""
    """Stands around each value."""
    value_end: str
    space: str = "\n"
    """Stands behind the name and behind each argument."""
    end: str

    def texts(self) -> Iterable[str]:
        base = (self.opening, self.before, self.between, self.after, self.closing, self.begin)
        return (*base, self.name_end, self.key_begin, self.key_end, self.value_end, self.end)

    def write_call(self, name: str, arguments: str, index: int) -> str:
        del index
        text = self.begin + name + self.name_end + self.space
        for key, value in pairs_of(arguments).items():
            said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            text += (
                f"{self.key_begin}{key}{self.key_end}{self.pad}{said}{self.pad}{self.value_end}{self.space}"
            )
        return text + self.end

    def call_grammar(self, name: str, schema: Mapping[str, Any], lark: Lark) -> str:
        root, top = schema, resolved(schema, schema)
        properties = top.get("properties") or {}
        required = top.get("required") or ()
        forms = []
        for key, member in properties.items():
            form = self._argument(json.dumps(key), member, root, lark)
            forms.append(form if key in required else f"{form}?")
        if not properties or top.get("additionalProperties") not in (None, False):
            known = "|".join(map(escaped, properties))
            other = r"/[A-Za-z_][A-Za-z0-9_.\-]{0,60}/" + (f" & ~/({known})/" if known else "")
            more = top.get("additionalProperties")
            value = more if isinstance(more, Mapping) else {}
            forms.append(self._argument(lark.terminal(other), value, root, lark) + "*")
        head = lark.literal(self.begin + name + self.name_end + self.space)
        return f"{head} {' '.join(forms)} {lark.literal(self.end)}"

    def reader(self, schemas: Schemas) -> StepReader:
        return _TaggedReader(self, schemas)

    def _argument(self, key: str, schema: Any, root: Mapping[str, Any], lark: Lark) -> str:
        start, middle = lark.literal(self.key_begin), lark.literal(self.key_end + self.pad)
        value = self._value(schema, root, lark)
        return lark.rule(f"{start} {key} {middle} {value} {lark.literal(self.space)}")

    def _value(self, schema: Any, root: Mapping[str, Any], lark: Lark) -> str:
        """What stands in the grammar for a value and the end of it."""
        kind = kind_of(schema, root)
        end = lark.literal(self.pad + self.value_end)
        forms = [] if kind == "text" else [f"{lark.json(rooted(schema, root))} {end}"]
        for branch in text_branches(schema, root):
            values = listed_values(branch)
            if values is None:
                forms.append(self._free_text(branch, kind == "mixed", lark))
                continue
            texts = [one for one in values if isinstance(one, str) and self.value_end not in one]
            plain = [text for text in texts if kind == "text" or not looks_like_json(text)]
            forms += [f"{json.dumps(text)} {end}" if text else end for text in plain]
        return f"({' | '.join(forms)})"

    def _free_text(self, schema: Mapping[str, Any], mixed: bool, lark: Lark) -> str:
        end = self.pad + self.value_end
        starts = "".join(map(escaped, JSON_STARTS)).replace(r"\x{2d}", r"\-")
        no_json = (rf"/[^{starts}](.|\n)*/", f"~/({'|'.join(WORDS)})/") if mixed else ()
        return lark.until(text_terminal(schema, end, lark, *no_json), self.pad, self.value_end)


class _TaggedReader(StepReader):
    def __init__(self, format: TaggedCalls, schemas: Schemas) -> None:
        self._format = format
        self._schemas = schemas
        super().__init__()

    def steps(self) -> Steps[None]:
        format = self._format
        self.name = yield from self._name()
        schema = self._schemas.get(self.name, {})
        comma = "{"
        while (yield from self._argument_follows()):
            first, *more = format.key_end.split()
            key = yield from self.until(first)
            for text in more:
                yield from self.expect(text)
            self.emit(f"{comma}{json.dumps(key, ensure_ascii=False)}: ")
            comma = ", "
            yield from self._value(kind_of(member_schema(key, schema, schema), schema))
        self.emit("{}" if comma == "{" else "}")

    def _name(self) -> Steps[str]:
        if end := self._format.name_end:
            return (yield from self.until(end)).strip()
        name = ""
        while True:
            char = yield from self.char()
            if char in WHITESPACE or char == "<":
                self.give_back(char)
                return name
            name += char

    def _argument_follows(self) -> Steps[bool]:
        """Reads the beginning of an argument or the end of the call."""
        key_begin, end = self._format.key_begin, self._format.end
        text = yield from self.past_space()
        while text not in (key_begin, end):
            if not (key_begin.startswith(text) or end.startswith(text)):
                raise Malformed
            text += yield from self.char()
        return text == key_begin

    def _value(self, kind: str) -> Steps[None]:
        format = self._format
        end = format.pad + format.value_end
        for wanted in format.pad:
            if (char := (yield from self.char())) != wanted:
                self.give_back(char)
                break
        if kind == "text":
            self.emit('"')
            yield from self.passing(end)
            self.emit('"')
            return
        first = yield from self.char()
        self.give_back(first)
        if kind == "json" or first in JSON_STARTS:
            yield from self.json_value()
            yield from self.expect(format.value_end)
            return
        text = ""
        while not text.endswith(end):
            text += yield from self.char()
        text = text[: len(text) - len(end)]
        self.emit(text if text in WORDS else json.dumps(text, ensure_ascii=False))


def looks_like_json(text: str) -> bool:
    """Whether a text without quotes would be read as JSON where both are possible."""
    return text in WORDS or not text or text[0] in JSON_STARTS
