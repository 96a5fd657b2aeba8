"""JSON Schemas as third parties write them, made such that a grammar can follow them.

Two degrees. What has one plain meaning is put into the words of the compiler, for everybody:
`required: null`, bounds of 64 bits, whole numbers written as fractions. What has none, or cannot be
followed, is left out with a note where the schema is a tool's, since whoever runs the tool checks its
arguments anyway.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from llguidance import LLMatcher

from pentad.model.schemas import NESTED, SEVERAL, SINGLE, GrammarLimits, words

TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
ALIASES = {
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "str": "string",
    "bool": "boolean",
    "dict": "object",
    "list": "array",
    "tuple": "array",
    "none": "null",
}
"""Names of types that programs write from other languages' words."""

INTEGER_BOUND = 1 << 62
NUMBER_BOUND = 1e18
"""The compiler's expressions for ranges end below 64 bits. A bound beyond is drawn in to here."""
MULTIPLE_BOUND = 4_096
"""Multiples of more than this make automata of as many states."""

LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
REAL_DAY = f"^([0-9]{{4}}-(0[13-9]|1[0-2]|02-([01]|2[0-8]))|{LEAP_YEAR}-02-29)"
"""How a day begins that there is: the compiler's dates have a 29 February in every year."""

LOOK_AROUND = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")
BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
COUNTS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains"}
)
VALUES = frozenset({"const", "default", "enum", "example", "examples"})
"""Keywords that hold data, which may be null."""
COSTLY = words(
    "pattern patternProperties multipleOf allOf oneOf format not if then else propertyNames contains "
    "dependentRequired dependentSchemas unevaluatedProperties unevaluatedItems minProperties maxProperties "
    "uniqueItems minLength maxLength minItems maxItems minimum maximum "
    "exclusiveMinimum exclusiveMaximum"
)
"""Keywords that a schema can do without and still say which properties of which types it wants."""


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema in the compiler's words, the meaning unchanged or narrower."""
    return dict(_Repair(root=schema, lenient=False).schema(schema, ""))


def lenient(schema: Mapping[str, Any], limits: GrammarLimits) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A tool's schema with what cannot be followed left out, and a note on each such place."""
    repair = _Repair(root=schema, lenient=True, limits=limits)
    out = repair.schema(schema, "")
    return dict(out), tuple(dict.fromkeys(repair.notes))


def bare(schema: Mapping[str, Any], limits: GrammarLimits) -> dict[str, Any]:
    """Names and types alone: the schema without its `COSTLY` keywords."""
    return dict(_Repair(root=schema, lenient=True, limits=limits, leave_out=COSTLY).schema(schema, ""))


@dataclass(slots=True)
class _Repair:
    """One pass over a schema. Depth is bounded by whoever checked it before."""

    root: Mapping[str, Any]
    lenient: bool
    limits: GrammarLimits = field(default_factory=GrammarLimits)
    leave_out: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)

    def schema(self, node: Any, path: str) -> Any:
        if isinstance(node, bool):
            return node
        if not isinstance(node, Mapping):
            return self._unusable(path, node, {})
        out: dict[str, Any] = {}
        for key, value in node.items():
            at = f"{path}.{key}" if path else str(key)
            if key in self.leave_out or (value is None and key not in VALUES):
                continue
            kept = self._keyword(key, value, at)
            if kept is not _OMITTED:
                out[key] = kept
        if out.get("format") in ("date", "date-time"):
            out.setdefault("pattern", REAL_DAY)
        self._count_properties(out, path)
        return out

    def _count_properties(self, out: dict[str, Any], path: str) -> None:
        """The compiler counts the unlisted properties alone where not all of the listed are required."""
        listed, required = out.get("properties"), out.get("required")
        if not self.lenient or not listed or set(listed) <= set(required or ()):
            return
        if "minProperties" in out:  # so that none are shut out who are needed
            out.setdefault("additionalProperties", True)
        for key in ("minProperties", "maxProperties"):
            if key in out:
                self._unusable(f"{path}.{key}" if path else key, out.pop(key))

    def _keyword(self, key: str, value: Any, at: str) -> Any:
        if key in NESTED:
            if not isinstance(value, Mapping):
                return self._unusable(at, value)
            items = value.items()
            # A property without a schema may be anything; so may one that is null.
            return {k: {} if v is None else self.schema(v, f"{at}.{k}") for k, v in items}
        if key in SEVERAL or (key == "items" and isinstance(value, (list, tuple))):
            if not isinstance(value, (list, tuple)) or not value:
                return self._unusable(at, value)
            return [self.schema(item, f"{at}[{i}]") for i, item in enumerate(value)]
        if key in SINGLE:
            return self.schema(value, at)
        return self._value(key, value, at)

    def _value(self, key: str, value: Any, at: str) -> Any:
        match key:
            case "type":
                return self._type(value, at)
            case "$ref":
                return value if self._resolves(value) else self._unusable(at, value)
            case "$schema":
                return _OMITTED if self.lenient or "json-schema.org" not in str(value) else value
            case "required":
                if isinstance(value, list) and all(isinstance(name, str) for name in value):
                    return value
                names = [n for n in value if isinstance(n, str)] if isinstance(value, list) else _OMITTED
                return self._unusable(at, value, names)
            case "enum":
                usable = isinstance(value, list) and 0 < len(value) <= self.limits.enum_values
                return value if usable else self._unusable(at, value)
            case "pattern":
                return value if self._expressible(value) else self._unusable(at, value)
            case "multipleOf":
                usable = _is_number(value) and 0 < value <= MULTIPLE_BOUND
                return value if usable or not self.lenient else self._unusable(at, value)
        if key in BOUNDS:
            return self._bound(value, at)
        if key in COUNTS:
            whole = _is_number(value) and value >= 0 and float(value).is_integer()
            return int(value) if whole else self._unusable(at, value)
        return value

    def _type(self, value: Any, at: str) -> Any:
        if not self.lenient:
            return value
        names = value if isinstance(value, (list, tuple)) else [value]
        known: list[str] = []
        for name in names:
            lower = name.lower() if isinstance(name, str) else ""
            if (read := ALIASES.get(lower, lower)) not in TYPES:  # "any" and what nobody knows
                return _OMITTED if lower == "any" else self._unusable(at, value)
            known.append(read)
        if not known:
            return self._unusable(at, value)
        return known if isinstance(value, (list, tuple)) else known[0]

    def _bound(self, value: Any, at: str) -> Any:
        if isinstance(value, bool):  # draft 4
            return value
        if not _is_number(value):
            return self._unusable(at, value)
        most = INTEGER_BOUND if isinstance(value, int) else NUMBER_BOUND
        return max(-most, min(most, value))

    def _expressible(self, pattern: Any) -> bool:
        """Whether the compiler reads the pattern; asked of tools' alone, as others are refused by it."""
        if not self.lenient:
            return True
        if not isinstance(pattern, str) or len(pattern) > self.limits.regex_chars:
            return False
        if LOOK_AROUND.search(pattern):
            return False
        source = LLMatcher.grammar_from_json_schema({"type": "string", "pattern": pattern})
        return not LLMatcher.validate_grammar(source)

    def _resolves(self, reference: Any) -> bool:
        if not self.lenient:
            return True
        if not isinstance(reference, str) or not re.match(r"#(/|\Z)", reference):
            return False
        node: Any = self.root
        for part in reference[1:].split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and name in node:
                node = node[name]
            elif isinstance(node, (list, tuple)) and name.isdigit() and int(name) < len(node):
                node = node[int(name)]
            else:
                return False
        return isinstance(node, (Mapping, bool))

    def _unusable(self, at: str, value: Any, instead: Any = None) -> Any:
        """Nothing, or what stands in, with a note; the value itself where it is not ours to judge."""
        if not self.lenient:
            return value
        shown = repr(value)
        self.notes.append(f"{at or 'the schema'}: {shown if len(shown) <= 60 else shown[:57] + '...'}")
        return _OMITTED if instead is None else instead


_OMITTED: Any = object()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
