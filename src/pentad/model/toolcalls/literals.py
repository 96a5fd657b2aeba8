"""Values as programs write them: how they are spelled, and a reader that turns them into JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from pentad.model.toolcalls.reading import Malformed, StepReader, Steps, valid_json

WORDS: Final = {
    "True": "true", "true": "true", "False": "false", "false": "false",
    "None": "null", "none": "null", "null": "null",
}  # fmt: skip
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0"}
HEX: Final = {"x": 2, "u": 4, "U": 8}
"""Digits of an escaped character's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notation:
    """How values are spelled."""

    true: str
    false: str
    null: str
    quote: str = ""
    """What stands around a text, which then has no escapes; empty for strings as in JSON."""
    bare_keys: bool = False
    """Whether keys within values stand without quotes where they are plain."""
    comma: str = ","
    colon: str = ":"

    def write(self, value: Any) -> str:
        """The value in this notation."""
        match value:
            case None | bool():
                return self.null if value is None else self.true if value else self.false
            case str():
                return self.write_text(value)
            case list() | tuple():
                return f"[{self.comma.join(map(self.write, value))}]"
            case dict():
                members = (f"{self.write_key(k)}{self.colon}{self.write(v)}" for k, v in value.items())
                return f"{{{self.comma.join(members)}}}"
        return json.dumps(value)

    def write_text(self, text: str) -> str:
        """A text with what stands around it."""
        return f"{self.quote}{text}{self.quote}" if self.quote else json.dumps(text, ensure_ascii=False)

    def write_key(self, key: str) -> str:
        """The key of a member of a value."""
        return key if self.bare_keys and is_plain(key) else self.write_text(key)


PYTHON: Final = Notation(true="True", false="False", null="None", comma=", ", colon=": ")
GEMMA: Final = Notation(true="true", false="false", null="null", quote='<|"|>', bare_keys=True)
FUNCTION_GEMMA: Final = Notation(true="true", false="false", null="null", quote="<escape>")


def is_plain(key: str) -> bool:
    """Whether a key can stand without quotes in every notation."""
    return key.isidentifier()


class LiteralReader(StepReader):
    """Reads values in one notation and in Python's, and emits them as JSON."""

    def __init__(self, notation: Notation) -> None:
        self._notation = notation
        super().__init__()

    def value(self) -> Steps[None]:
        """Reads one value; a number or word ends before what follows it."""
        first = yield from self.past_space()
        if first in "[(":
            yield from self._list("]" if first == "[" else ")")
        elif first == "{":
            yield from self._members()
        elif (yield from self._quoted(first)):
            return
        else:
            text = yield from self.word(first)
            self.emit(WORDS.get(text) or valid_json(text.removeprefix("+")))

    def key(self, end: str) -> Steps[str]:
        """A key up to `end`, which is read too, with quotes or without."""
        first = yield from self.past_space()
        self._to = []
        if (yield from self._quoted(first)):
            text: str = json.loads("".join(self._to))
            self._to = self._out
            yield from self.expect(end)
            return text
        self._to = self._out
        return (first + (yield from self.until(end))).strip() if first != end else ""

    def _list(self, closing: str) -> Steps[None]:
        self.emit("[")
        comma = ""
        while (char := (yield from self.past_space())) != closing:
            if char != ",":
                self.give_back(char)
                self.emit(comma)
                comma = ", "
                yield from self.value()
        self.emit("]")

    def _members(self) -> Steps[None]:
        self.emit("{")
        yield from self.members("}", ":", "")
        self.emit("}")

    def members(self, closing: str, colon: str, comma: str) -> Steps[str]:
        """Reads members up to `closing` and emits them; returns what stands before a further member.

        Args:
            closing: ends them.
            colon: between key and value.
            comma: what to emit before the first.
        """
        while (char := (yield from self.past_space())) != closing:
            if char == ",":
                continue
            if char == "*":  # **{"key": value}, for keys that are no names
                yield from self.expect("*{")
                comma = yield from self.members("}", ":", comma)
                continue
            self.give_back(char)
            key = yield from self.key(colon)
            self.emit(f"{comma}{json.dumps(key, ensure_ascii=False)}: ")
            comma = ", "
            yield from self.value()
        return comma

    def _quoted(self, first: str) -> Steps[bool]:
        """Reads a text in quotes, if that is what begins."""
        quote = self._notation.quote
        if quote and first == quote[0]:
            yield from self.expect(quote[1:])
            self.emit('"')
            yield from self.passing(quote)
            self.emit('"')
            return True
        if first not in "\"'":
            return False
        self.emit('"')
        while (char := (yield from self.char())) != first:
            if char == "\\":
                yield from self._escape()
            else:
                self.emit_text(char)
        self.emit('"')
        return True

    def _escape(self) -> Steps[None]:
        char = yield from self.char()
        if char not in HEX:
            self.emit_text(ESCAPES.get(char, char))
            return
        digits = ""
        for _ in range(HEX[char]):
            digits += yield from self.char()
        try:
            number = int(digits, 16)
        except ValueError:
            raise Malformed from None
        if number > 0x10FFFF:
            raise Malformed
        # Half of a pair stays an escape: only with its other half it is a character.
        self.emit(f"\\u{number:04x}" if 0xD800 <= number < 0xE000 else json.dumps(chr(number))[1:-1])
