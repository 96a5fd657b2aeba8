"""StepReader: a reader of one call written as straight-line code that is handed its characters one by one."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TypeVar

from pentad.model.toolcalls.scanner import WHITESPACE

T = TypeVar("T")
Steps = Generator[None, str, T]
"""Code that stops where it needs the next character, and in the end returns something."""

MAX_NAME_CHARS = 512
"""A longer name is none: what looks like a call without an end must not be held back for ever."""


class Malformed(Exception):
    """A character came that no call has there."""


class StepReader:
    """Implements CallReader over a generator that reads the call. Subclasses write `steps`."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.done = False
        self.broken = False
        self._back = ""
        """A character that was looked at and is still to be read."""
        self._out: list[str] = []
        self._to = self._out
        """Where emitted text goes: a key is kept aside until it is complete."""
        self._reading = self.steps()
        next(self._reading)

    def steps(self) -> Steps[None]:
        """Reads a call from behind its `begin`; sets `name`, and emits the arguments."""
        raise NotImplementedError

    def feed(self, char: str) -> None:
        """See CallReader."""
        try:
            self._reading.send(char)
        except StopIteration:
            self.done = True
        except Malformed:
            self.broken = True

    def take(self) -> str:
        """See CallReader."""
        text = "".join(self._out)
        self._out.clear()
        return text

    def emit(self, text: str) -> None:
        """Adds to the JSON text of the arguments."""
        self._to.append(text)

    def emit_text(self, text: str) -> None:
        """Adds to a JSON string that is open."""
        self._to.append(json.dumps(text, ensure_ascii=False)[1:-1])

    def char(self) -> Steps[str]:
        """The next character."""
        if self._back:
            char, self._back = self._back, ""
            return char
        return (yield)

    def give_back(self, char: str) -> None:
        """Leaves a character to be read again."""
        self._back = char

    def past_space(self) -> Steps[str]:
        """The next character that is no white space."""
        while True:
            char = yield from self.char()
            if char not in WHITESPACE:
                return char

    def expect(self, text: str) -> Steps[None]:
        """Reads exactly this text, whose white space may be more or less. Raises Malformed for another."""
        for wanted in text:
            if wanted not in WHITESPACE and (yield from self.past_space()) != wanted:
                raise Malformed

    def until(self, end: str) -> Steps[str]:
        """The text up to `end`, which is read too. Raises Malformed where that is too long for a name."""
        text = ""
        while not text.endswith(end):
            text += yield from self.char()
            if len(text) > MAX_NAME_CHARS:
                raise Malformed
        return text[: len(text) - len(end)]

    def passing(self, end: str) -> Steps[None]:
        """Emits the text up to the first `end`, as it comes, into an open JSON string; reads `end` too."""
        held = ""
        while True:
            held += yield from self.char()
            if held == end:
                return
            while held and not end.startswith(held):
                self.emit_text(held[0])
                held = held[1:]

    def json_value(self) -> Steps[None]:
        """Emits one JSON value as it was written; a number or word ends before what follows it."""
        first = yield from self.past_space()
        if first in "{[":
            yield from self._json_nested(first)
        elif first == '"':
            self.emit(first)
            yield from self._json_string()
        else:
            text = yield from self.word(first)
            self.emit(valid_json(text))

    def word(self, first: str) -> Steps[str]:
        """A number or a bare word that begins with this character."""
        text = first
        while True:
            char = yield from self.char()
            if not (char.isalnum() or char in "+-._"):
                self.give_back(char)
                return text
            text += char
            if len(text) > MAX_NAME_CHARS:
                raise Malformed

    def _json_string(self) -> Steps[None]:
        escaped = False
        while True:
            char = yield from self.char()
            self.emit(char)
            if char == '"' and not escaped:
                return
            escaped = char == "\\" and not escaped

    def _json_nested(self, first: str) -> Steps[None]:
        self.emit(first)
        depth = 1
        while depth:
            char = yield from self.char()
            self.emit(char)
            if char == '"':
                yield from self._json_string()
            else:
                depth += (char in "{[") - (char in "}]")


def valid_json(text: str) -> str:
    """The text, if it is a JSON value. Raises Malformed."""
    try:
        json.loads(text)
    except ValueError:
        raise Malformed from None
    return text
