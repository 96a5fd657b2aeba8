"""The grammar of values in a notation that is not JSON, from the JSON schema that they have to fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pentad.model.lark import Lark, escaped
from pentad.model.toolcalls.literals import Notation, is_plain
from pentad.model.toolcalls.schema_types import (
    alternatives,
    listed_values,
    resolved,
    rooted,
    type_names,
)
from pentad.model.toolcalls.text_terminals import text_terminal

TYPES = ("string", "number", "boolean", "null", "array", "object")
MAX_DEPTH = 12
"""Schemas within schemas that are followed; values that lie deeper may be anything."""


@dataclass(slots=True)
class LiteralGrammar:
    """Writes rules for values that fit a schema.

    Followed are types, enumerations, alternatives, members, items and their number, and of texts
    length, pattern and format; of numbers and quoted texts all that the JSON grammar follows.

    Args:
        notation: how values are spelled.
        lark: gets the rules.
        root: the schema that references point into.
    """

    notation: Notation
    lark: Lark
    root: Mapping[str, Any]
    _anything: str = ""

    def value(self, schema: Any, depth: int = 0) -> str:
        """What stands in the grammar for a value of the schema."""
        schema = resolved(schema, self.root)
        if depth > MAX_DEPTH:
            return self.anything()
        if (values := listed_values(schema)) is not None:
            return self._any_of([self._exactly(value) for value in values])
        if branches := alternatives(schema):
            return self._any_of([self.value(branch, depth + 1) for branch in branches])
        names = type_names(schema)
        if not names:
            return self.anything()
        return self._any_of([self._typed(name, schema, depth) for name in names])

    def members(self, schema: Any, member: Sequence[str], comma: str, depth: int = 0) -> str:
        """What stands in the grammar for the members of an object, in the schema's order.

        Args:
            schema: of the object.
            member: what stands before and behind the key of a member that is a plain name.
            comma: between members.
            depth: of the object within the schema.
        """
        schema = resolved(schema, self.root)
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required = schema.get("required") or ()
        more = schema.get("additionalProperties", not properties)
        extra = self._extra(more, properties, member, depth) if more is not False else ""
        # `rest`: what may follow a member; `start`: the same where none stands before.
        rest = self.lark.rule(f"({comma} {extra})*" if extra else '""')
        start = self.lark.rule(f"({extra} {rest})?" if extra else '""')
        for key, value in reversed(list(properties.items())):
            one = self.lark.rule(self._member(key, member, self.value(value, depth + 1)))
            if key in required:
                start = self.lark.rule(f"{one} {rest}")
                rest = self.lark.rule(f"{comma} {one} {rest}")
            else:
                start = self.lark.rule(f"{one} {rest} | {start}")
                rest = self.lark.rule(f"({comma} {one})? {rest}")
        return start

    def anything(self) -> str:
        """The name of a rule for any value."""
        if not self._anything:
            self._anything = self.lark.named_rule("anything", "")
            forms = [self._typed(name, {}, MAX_DEPTH) for name in TYPES]
            self.lark.named_rule(self._anything, self._any_of(forms))
        return self._anything

    def _member(self, key: str, member: Sequence[str], value: str) -> str:
        before, behind = member
        colon = self.lark.literal(self.notation.colon)
        if before == "nested":
            plain = self.notation.bare_keys and is_plain(key)
            return f"{json.dumps(key) if plain else self._text(key)} {colon} {value}"
        if is_plain(key) or self.notation.quote:
            return f"{json.dumps(key + behind)} {value}"
        return f'"**{{" {json.dumps(json.dumps(key, ensure_ascii=False))} {colon} {value} "}}"'

    def _extra(self, schema: Any, properties: Mapping[str, Any], member: Sequence[str], depth: int) -> str:
        known = "|".join(map(escaped, properties))
        key = self.lark.terminal(r"/[A-Za-z_][A-Za-z0-9_]{0,60}/" + (f" & ~/({known})/" if known else ""))
        value = self.value(schema if isinstance(schema, Mapping) else {}, depth + 1)
        before, behind = member
        if before != "nested":
            return self.lark.rule(f"{key} {json.dumps(behind)} {value}")
        quote = "" if self.notation.bare_keys else self.lark.literal(self.notation.quote or '"')
        return self.lark.rule(f"{quote} {key} {quote} {self.lark.literal(self.notation.colon)} {value}")

    def _exactly(self, value: Any) -> str:
        match value:
            case str():
                return self._text(value)
            case list() | tuple():
                comma = f" {self.lark.literal(self.notation.comma)} "
                return f'"[" {comma.join(map(self._exactly, value))} "]"'
            case dict():
                comma = f" {self.lark.literal(self.notation.comma)} "
                members = (self._member(k, ("nested", ""), self._exactly(v)) for k, v in value.items())
                return f'"{{" {comma.join(members)} "}}"'
        return json.dumps(self.notation.write(value))

    def _text(self, text: str) -> str:
        if not self.notation.quote:
            return json.dumps(self.notation.write_text(text))
        quote = self.lark.literal(self.notation.quote)
        return f"{quote} {json.dumps(text) if text else ''} {quote}"

    def _typed(self, name: str, schema: Mapping[str, Any], depth: int) -> str:
        match name:
            case "string" if self.notation.quote:
                quote = self.notation.quote
                text = self.lark.until(text_terminal(schema, quote, self.lark), quote)
                return f"{self.lark.literal(quote)} {text}"
            case "boolean":
                return f"({json.dumps(self.notation.true)} | {json.dumps(self.notation.false)})"
            case "null":
                return json.dumps(self.notation.null)
            case "array":
                return self._array(schema, depth)
            case "object":
                comma = self.lark.literal(self.notation.comma)
                return f'"{{" {self.members(schema, ("nested", ""), comma, depth)} "}}"'
            case "string" | "number" | "integer":
                return self.lark.json({**rooted(schema, self.root), "type": name})
        return self.anything()

    def _array(self, schema: Mapping[str, Any], depth: int) -> str:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most == 0:
            return '"[]"'
        item = self.lark.rule(self.value(schema.get("items", {}), depth + 1))
        several = item
        if most != 1:
            bounds = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
            several = f"{item} ({self.lark.literal(self.notation.comma)} {item}){bounds}"
        return f'"[" ({several}){"" if least else "?"} "]"'

    def _any_of(self, forms: Sequence[str]) -> str:
        return f"({' | '.join(forms)})" if forms else self.anything()
