"""Terminals for texts without quotes: a schema's lengths, `pattern` and `format` as regular expressions.

Inside JSON the compiler follows these keywords itself. Where a format writes a text bare, nobody does: the
grammar has to say what the schema means in the words of its own regular expressions, which know no anchors,
no look-around and no lazy repetition.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from llguidance import LLMatcher

from pentad.model.lark import Lark, escaped
from pentad.model.schema_repair import LEAP_YEAR
from pentad.model.toolcalls.schema_types import text_lengths

ANY: Final = r"(.|\n)"
_YEAR = "(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LONG, _SHORT = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01]))", "((0[469]|11)-(0[1-9]|[12][0-9]|30))"
_DATE = f"({_YEAR}-({_LONG}|{_SHORT}|02-(0[1-9]|1[0-9]|2[0-8]))|{LEAP_YEAR}-02-29)"
_HOUR, _SIXTY = "([01][0-9]|2[0-3])", "[0-5][0-9]"
_TIME = rf"{_HOUR}:{_SIXTY}:{_SIXTY}(\.[0-9]{{1,9}})?(Z|[+\-]{_HOUR}:{_SIXTY})"
_DAYS = "([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)"
_HOURS = "T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL})*"
_ATOM = r"[A-Za-z0-9!#$%\&'*+\/=?\^_`{|}\~\-]+"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_H = "[0-9A-Fa-f]{1,4}"
_IPV6 = "|".join(
    [
        f"({_H}:){{7}}{_H}",
        f"({_H}:){{1,7}}:",
        *(f"({_H}:){{1,{n}}}(:{_H}){{1,{7 - n}}}" for n in range(1, 7)),
        f":((:{_H}){{1,7}}|:)",
    ]
)
_URI_CHAR = r"([A-Za-z0-9\-._\~!$\&'()*+,;=:@\/]|%[0-9A-Fa-f]{2})"

FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "date": _DATE,
        "time": _TIME,
        "date-time": f"{_DATE}T{_TIME}",
        "duration": f"P({_DAYS}({_HOURS})?|{_HOURS}|[0-9]+W)",
        "email": rf"{_ATOM}(\.{_ATOM})*@{_HOST}",
        "hostname": _HOST,
        "ipv4": rf"{_OCTET}(\.{_OCTET}){{3}}",
        "ipv6": _IPV6,
        "uuid": "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
        "uri": rf"[A-Za-z][A-Za-z0-9+.\-]*:{_URI_CHAR}+(\?({_URI_CHAR}|\?)*)?(#({_URI_CHAR}|\?)*)?",
    }
)
"""Formats of JSON Schema that are followed; any other is a mere annotation."""
MAX_PATTERN_CHARS: Final = 4_096

_QUANTIFIER = re.compile(r"\{[0-9]+(,[0-9]*)?\}")
_CLASSES: Final = {"d": "0-9", "w": "A-Za-z0-9_"}
"""ECMA's classes are of ASCII."""
_CONTROL: Final = {"n": r"\n", "t": r"\t", "r": r"\r", "f": r"\x0c", "v": r"\x0b", "0": r"\x00"}


def text_terminal(schema: Mapping[str, Any], end: str, lark: Lark, *more: str) -> str:
    """The body of a terminal for texts of the schema that stand in front of `end` and do not hold it.

    A pattern that cannot be said here (anchors within a group, `\\b`) is not followed.

    Args:
        schema: of the text, without alternatives.
        end: what ends the text in the call.
        lark: of the grammar; where `end` is a control token no text holds it.
        more: further regular expressions, between slashes, that the text has to match.
    """
    least, most = text_lengths(schema)
    wanted = [rf"/{ANY}{{{least},{'' if most is None else most}}}/", *more]
    pattern, format = schema.get("pattern"), schema.get("format")
    if isinstance(pattern, str) and (found := whole_match(pattern)) is not None:
        wanted.append(f"/{found}/")
    if isinstance(format, str) and format in FORMATS:
        wanted.append(f"/{FORMATS[format]}/")
    if (len(wanted) > 1 or least) and not lark.has_token(end):
        # Else what is too short, or fits no pattern yet, would go on behind the end.
        wanted.append(f"~/{ANY}*{escaped(end)}{ANY}*/")
    return " & ".join(wanted)


@functools.lru_cache(1024)
def whole_match(pattern: str) -> str | None:
    """An expression without anchors that matches exactly the texts in which the pattern is found.

    None for what cannot be said so, or is too long.
    """
    try:
        if len(pattern) > MAX_PATTERN_CHARS:
            raise _Unsayable
        found = "|".join(_Translation(pattern).branches())
    except (_Unsayable, IndexError):
        return None
    grammar = json.dumps({"grammars": [{"lark_grammar": f"start: T\nT: /{found}/"}]})
    return None if LLMatcher.validate_grammar(grammar) else found


class _Unsayable(Exception):
    pass


class _Translation:
    """One pass over a pattern as ECMA-262 writes it."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def branches(self) -> list[str]:
        """The alternatives at the top, each with any text at the sides where it is not anchored."""
        found = []
        while True:
            start = self._take("^")
            body = self._sequence(depth=0)
            end = self._take("$")
            found.append(f"({'' if start else ANY + '*'}({body}){'' if end else ANY + '*'})")
            if self._at == len(self._pattern):
                return found
            if not self._take("|"):
                raise _Unsayable

    def _take(self, char: str) -> bool:
        taken = self._pattern.startswith(char, self._at)
        self._at += len(char) * taken
        return taken

    def _sequence(self, depth: int) -> str:
        """Up to the end of the branch or group; `|` is kept within groups."""
        out = ""
        while self._at < len(self._pattern):
            char = self._pattern[self._at]
            if (char in "|$" and not depth) or (char == ")" and depth):
                break
            self._at += 1
            match char:
                case "^" | "$" | ")":
                    raise _Unsayable
                case "(":
                    out += self._group(depth)
                case "[":
                    out += self._class()
                case "\\":
                    out += self._escape(inside=False)
                case "*" | "+" | "?":
                    out += char
                    self._take("?")
                case "{" if quantifier := _QUANTIFIER.match(self._pattern, self._at - 1):
                    out += quantifier[0]
                    self._at = quantifier.end()
                    self._take("?")
                case "|" | ".":
                    out += char
                case _:
                    out += escaped(char)
        return out

    def _group(self, depth: int) -> str:
        if self._take("?") and not self._take(":"):
            name = re.compile(r"<[A-Za-z_]\w*>").match(self._pattern, self._at)
            if name is None:
                raise _Unsayable
            self._at = name.end()
        body = self._sequence(depth + 1)
        if not self._take(")"):
            raise _Unsayable
        return f"({body})"

    def _class(self) -> str:
        out = "[" + "^" * self._take("^")
        empty = True
        while (char := self._pattern[self._at]) != "]":
            self._at += 1
            empty = False
            out += self._escape(inside=True) if char == "\\" else char if char == "-" else escaped(char)
        self._at += 1
        if empty:
            raise _Unsayable
        return out + "]"

    def _escape(self, *, inside: bool) -> str:
        char = self._pattern[self._at]
        self._at += 1
        if char in _CLASSES:
            return _CLASSES[char] if inside else f"[{_CLASSES[char]}]"
        if char in "DW":
            return f"[^{_CLASSES[char.lower()]}]"
        if char in "sS":
            return f"\\{char}"
        if char in _CONTROL:
            return _CONTROL[char]
        if char in "pP" and (named := re.compile(r"\{\w+\}").match(self._pattern, self._at)):
            self._at = named.end()
            return f"\\{char}{named[0]}"
        if char in "xu":
            digits = self._pattern[self._at : self._at + (2 if char == "x" else 4)]
            if not re.fullmatch(r"[0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}", digits):
                raise _Unsayable
            self._at += len(digits)
            return rf"\x{{{digits}}}"
        if char.isalnum():
            raise _Unsayable
        return escaped(char)
