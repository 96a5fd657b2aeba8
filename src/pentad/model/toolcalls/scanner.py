"""Reads one call object, `{"name": ..., "arguments": {...}}`, character by character."""

from __future__ import annotations

from enum import Enum, auto

from pentad.json_text import parse_json

SPACES = " \t\r\n"
"""White space as JSON has it; any other, such as U+00A0, is text."""

WHITESPACE = frozenset(SPACES)
NAME_KEYS = frozenset({"name", "tool_name"})
ARGUMENT_KEYS = frozenset({"arguments", "parameters"})


class _At(Enum):
    KEY = auto()
    """Before a key or the end of the object."""
    IN_KEY = auto()
    COLON = auto()
    VALUE = auto()
    """Before a value."""
    IN_VALUE = auto()
    AFTER_VALUE = auto()


class CallScanner:
    """The state of reading one call object, fed from behind its opening brace.

    It follows the outermost level and leaves what is nested alone, so that the text of the
    arguments can be passed on exactly as generated while it is still being generated. Doubled
    braces, which models learn from templates with a typo, are read as single ones.

    Args:
        names: of the offered tools, as calls spell them.

    Attributes:
        name: the name, once its string is complete.
        spelling: the name as it was written, quotes and all.
        doubled: whether the object began with two braces, so that a second may follow its end.
        done: whether the closing brace was read.
        broken: whether a character came that no call object has there.
    """

    __slots__ = (
        "_arguments",
        "_at",
        "_depth",
        "_escaped",
        "_extra",
        "_first",
        "_key",
        "_names",
        "_piece",
        "_quoted",
        "broken",
        "done",
        "doubled",
        "name",
        "spelling",
    )

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names
        self.name: str | None = None
        self.spelling = ""
        self.doubled = False
        self.done = False
        self.broken = False
        self._at = _At.KEY
        self._key = ""
        self._first = ""
        """The first key, as it was written."""
        self._extra = False
        """Whether the arguments began with two braces, so that one more closes them."""
        self._piece: list[str] = []
        """Characters of the key or value being read."""
        self._arguments: list[str] = []
        """Characters of the arguments not yet taken."""
        self._depth = 0
        self._quoted = False
        self._escaped = False

    @property
    def unlike_call(self) -> bool:
        """Whether it does not begin with the name of an offered tool, as every call without a mark does."""
        return self._first not in ("", '"name"') or (
            self.name is not None and self.spelling not in self._names
        )

    def take(self) -> str:
        """The text of the arguments that came since the last call of this method."""
        text = "".join(self._arguments)
        self._arguments.clear()
        return text

    def feed(self, char: str) -> None:
        """Reads the next character."""
        match self._at:
            case _At.IN_VALUE:
                self._in_value(char)
            case _At.IN_KEY:
                self._piece.append(char)
                if self._string_ends(char):
                    self._key = str(self._decoded())
                    self._first = self._first or "".join(self._piece)
                    self._at = _At.COLON
            case _ if char in WHITESPACE:
                return
            case _At.KEY if char == "{" and not self._first and not self.doubled:
                self.doubled = True
            case _At.AFTER_VALUE if char == "}" and self._extra:
                self._extra = False
            case _At.KEY if char == '"':
                self._start(char, _At.IN_KEY)
            case _At.KEY | _At.AFTER_VALUE if char == "}":
                self.done = True
            case _At.COLON if char == ":":
                self._at = _At.VALUE
            case _At.AFTER_VALUE if char == ",":
                self._at = _At.KEY
            case _At.VALUE if char not in ",:}]":
                self._start(char, _At.IN_VALUE)
                self._depth = int(char in "{[")
                self._pass_on(char)
            case _:
                self.broken = True

    def _start(self, char: str, at: _At) -> None:
        self._piece = [char]
        self._quoted = char == '"'
        self._escaped = False
        self._at = at

    def _string_ends(self, char: str) -> bool:
        """Follows a string; True at its closing quote."""
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._quoted = False
            return True
        return False

    def _in_value(self, char: str) -> None:
        if self._quoted:
            self._piece.append(char)
            self._pass_on(char)
            if self._string_ends(char) and not self._depth:
                self._value_ends()
            return
        if not self._depth and (char in WHITESPACE or char in ",}"):
            self._value_ends()
            if not self.broken:
                self.feed(char)
            return
        if char == "{" and self._key in ARGUMENT_KEYS and not self._extra and self._is_opened():
            self._extra = True
            return
        self._piece.append(char)
        self._pass_on(char)
        if char == '"':
            self._quoted = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            if self._depth <= 0:
                self._value_ends()

    def _is_opened(self) -> bool:
        """Whether nothing but an opening brace has come of the value."""
        return len(self._piece) < 64 and "".join(self._piece).strip(SPACES) == "{"

    def _pass_on(self, char: str) -> None:
        """Arguments go out as they come if they are an object; else they wait for their end."""
        if self._key in ARGUMENT_KEYS and self._piece[0] == "{":
            self._arguments.append(char)

    def _value_ends(self) -> None:
        self._at = _At.AFTER_VALUE
        if self._key in NAME_KEYS:
            value = self._decoded()
            if isinstance(value, str):
                self.name, self.spelling = value, "".join(self._piece)
            else:
                self.broken = True
        elif self._key in ARGUMENT_KEYS and self._piece[0] != "{":
            value = self._decoded()
            # Some models write the arguments as a string that holds the JSON, or null for none.
            text = value if isinstance(value, str) else "{}" if value is None else "".join(self._piece)
            self._arguments.append(text)

    def _decoded(self) -> object:
        try:
            value: object = parse_json("".join(self._piece), strict=False)
        except ValueError:
            self.broken = True
            return ""
        return value
