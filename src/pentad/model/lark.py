"""Lark: collects the rules of one grammar for llguidance, and the JSON schemas that they refer to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

Part = dict[str, Any]
"""One named grammar of a source."""

JSON_SPACE = r" {1,2}|\r?\n( {0,40}|\t{0,10})"
"""White space that may stand between the parts of a JSON text: what models write by themselves, a space or
a new line with its indentation, and no more, so that a weak model cannot lose itself in it."""


class Lark:
    """Collects rules, and grammars of JSON schemas beside them.

    Args:
        special: control tokens by their text; where a literal holds one, the grammar asks for the token.
    """

    def __init__(self, special: Mapping[str, int]) -> None:
        self.special = special
        self.lines: list[str] = []
        self.parts: list[Part] = []
        self._names = 0

    def has_token(self, text: str) -> bool:
        """Whether a control token stands in the text: no terminal matches it then."""
        return any(token in text for token in self.special)

    def literal(self, text: str) -> str:
        """Exactly this text; empty for none."""
        if not text:
            return ""
        names = sorted((name for name in self.special if name in text), key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
        return " ".join(
            f"<[{self.special[piece]}]>" if piece in self.special else json.dumps(piece)
            for piece in pieces
            if piece
        )

    def rule(self, body: str, *, attributes: str = "") -> str:
        """The name of a new rule with that body."""
        self._names += 1
        self.lines.append(f"r{self._names}{attributes}: {body}")
        return f"r{self._names}"

    def named_rule(self, stem: str, body: str) -> str:
        """A name for a rule that may refer to itself; written once it has a body."""
        if not body:
            self._names += 1
            return f"{stem}{self._names}"
        self.lines.append(f"{stem}: {body}")
        return stem

    def terminal(self, body: str) -> str:
        """The name of a new terminal, which may intersect and exclude regular expressions."""
        self._names += 1
        self.lines.append(f"T{self._names}: {body}")
        return f"T{self._names}"

    def until(self, terminal: str, *ends: str) -> str:
        """A rule for text of a terminal up to the first place where the ends follow it, the ends included.

        Args:
            terminal: a regular expression between slashes, or several with `&` and `~`.
            ends: texts or control tokens, one behind the other.
        """
        name, end = self.terminal(terminal), "".join(ends)
        if self.has_token(end):  # no text of a terminal holds one, so it ends there by itself
            return self.rule(f"{name} {self.literal(end)}")
        return self.rule(f"{name} {json.dumps(end)}", attributes="[lazy]")

    def json(self, schema: Mapping[str, Any]) -> str:
        """A reference to the grammar of JSON texts that fit the schema, as far as it can be enforced."""
        name = f"json{len(self.parts)}"
        self.parts.append(schema_part(name, schema, lenient=True))
        return f"@{name}"


def schema_part(name: str, schema: Mapping[str, Any], *, lenient: bool) -> Part:
    """The grammar of JSON texts of a schema; lenient, keywords that cannot be enforced are warned of."""
    options: dict[str, Any] = {
        "whitespace_flexible": True,
        "whitespace_pattern": JSON_SPACE,
        "lenient": lenient,
    }
    return {"name": name, "json_schema": {**schema, "x-guidance": {**options, "coerce_one_of": lenient}}}


def escaped(text: str) -> str:
    """Exactly this text within a regular expression within Lark."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in '_"' else rf"\x{{{ord(c):x}}}" for c in text)
