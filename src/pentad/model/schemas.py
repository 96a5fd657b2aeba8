"""JSON Schemas that clients send: bounded, self-contained, and closed where they list properties."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pentad.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarLimits:
    """What a request may ask to be compiled."""

    schema_bytes: int = 262_144
    schema_depth: int = 48
    enum_values: int = 2_000
    regex_chars: int = 4_096
    choices: int = 2_000
    grammar_chars: int = 65_536
    tools: int = 256
    harmless_bytes: int = 8_192
    """A schema up to this length that uses `HARMLESS` keywords alone compiles in milliseconds."""


def words(text: str) -> frozenset[str]:
    """The words of a text, for lists of keywords."""
    return frozenset(text.split())


NESTED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
"""Keywords that hold schemas by name."""
SINGLE = (
    "items",
    "additionalProperties",
    "additionalItems",
    "unevaluatedProperties",
    "unevaluatedItems",
    "propertyNames",
    "contains",
    "not",
    "if",
    "then",
    "else",
)
"""Keywords that hold one schema."""
SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
"""Keywords that hold a list of schemas."""

HARMLESS = words(
    "type properties required items prefixItems additionalProperties anyOf enum const format minimum maximum "
    "exclusiveMinimum exclusiveMaximum minItems maxItems minLength maxLength $defs definitions $ref $schema "
    "title description default examples deprecated nullable x-guidance"
)


def plain_data(schema: Any, limits: GrammarLimits, param: str) -> dict[str, Any]:
    """The schema as plain data within depth and length. Raises InvalidRequest."""
    if not isinstance(schema, Mapping):
        raise InvalidRequest(
            f"{param} is a {type(schema).__name__}, not a JSON Schema object",
            hint="send an object",
            param=param,
        )
    if any(depth > limits.schema_depth for depth, _ in _walk(schema)):
        raise over(param, "nests deeper than", limits.schema_depth, "levels")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{param} is no JSON: {error}", hint="send plain JSON", param=param) from error
    if len(text) > limits.schema_bytes:
        raise over(param, "is longer than", limits.schema_bytes, "bytes")
    plain: dict[str, Any] = json.loads(text)
    return plain


def checked_schema(schema: Any, limits: GrammarLimits, param: str) -> dict[str, Any]:
    """The schema as plain data, if it is within all limits and refers only to itself.

    Raises InvalidRequest; never fetches anything.
    """
    for _, node in _walk(schema):
        if not isinstance(node, Mapping):
            continue
        reference = node.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise InvalidRequest(
                f"{param} refers to {reference[:100]!r} by $ref; only references within the schema are read",
                hint="copy the definition into `$defs`",
                param=param,
            )
        values = node.get("enum")
        if isinstance(values, (list, tuple)) and len(values) > limits.enum_values:
            raise over(param, "has an enum of more than", limits.enum_values, "values")
        pattern = node.get("pattern")
        if isinstance(pattern, str) and len(pattern) > limits.regex_chars:
            raise over(param, "has a pattern of more than", limits.regex_chars, "characters")
    return plain_data(schema, limits, param)


def _walk(root: Any) -> Iterator[tuple[int, Any]]:
    """Every node with its depth, without recursion."""
    stack = [(0, root)]
    while stack:
        depth, node = stack.pop()
        yield depth, node
        if isinstance(node, Mapping):
            stack.extend((depth + 1, child) for child in node.values())
        elif isinstance(node, (list, tuple)):
            stack.extend((depth + 1, child) for child in node)


def harmless(schema: Any, limits: GrammarLimits) -> bool:
    """Whether compiling the schema cannot take long: it is short, and no keyword of it can multiply."""
    if len(json.dumps(schema)) > limits.harmless_bytes:
        return False
    stack = [schema]
    while stack:
        node = stack.pop()
        if not isinstance(node, dict):
            continue
        if not node.keys() <= HARMLESS:
            return False
        for key in NESTED:
            stack.extend(node[key].values() if isinstance(node.get(key), dict) else ())
        for key in (*SINGLE, *SEVERAL):
            held = node.get(key)
            stack.extend(held if isinstance(held, list) else (held,))
    return True


JOINING = frozenset({"$ref", "anyOf", "oneOf", "if", "dependentSchemas"})
"""Keywords whose schemas describe the same object as the keywords beside them."""
OF_OBJECTS = words(
    "properties required minProperties maxProperties additionalProperties patternProperties propertyNames "
    "dependentRequired dependentSchemas"
)
OPEN_ENDED = frozenset(
    {"additionalProperties", "unevaluatedProperties", "patternProperties", "dependentSchemas"}
)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with `additionalProperties: false` wherever properties are listed and nothing is said.

    What it accepts is a subset of what the schema accepts, and never empty for that. Schemas that add the
    parts of one object together (allOf, or alternatives beside the object's own keywords) are returned as
    they are; an object that needs more than it lists stays open.
    """
    for _, node in _walk(schema):
        if isinstance(node, Mapping) and (
            "allOf" in node or (OF_OBJECTS & node.keys() and JOINING & node.keys())
        ):
            return schema
    return _closed(schema)


def _closed(node: dict[str, Any]) -> dict[str, Any]:
    out = dict(node)
    for key in ("properties", "$defs", "definitions", "patternProperties"):
        if isinstance(out.get(key), dict):
            out[key] = {k: _closed(v) if isinstance(v, dict) else v for k, v in out[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _closed(out[key])
    for key in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(out.get(key), list):
            out[key] = [_closed(v) if isinstance(v, dict) else v for v in out[key]]
    if isinstance(out.get("properties"), dict) and not OPEN_ENDED & out.keys() and _lists_enough(out):
        out["additionalProperties"] = False
    return out


def _lists_enough(node: Mapping[str, Any]) -> bool:
    """Whether an object of the listed properties alone can be what the schema asks for."""
    listed = {name for name, schema in node["properties"].items() if schema is not False}
    needed = list(node.get("required") or ()) if isinstance(node.get("required"), list) else []
    dependent = node.get("dependentRequired")
    for names in dependent.values() if isinstance(dependent, dict) else ():
        needed += names if isinstance(names, list) else []
    least = node.get("minProperties", 0)
    return listed.issuperset(needed) and not (isinstance(least, (int, float)) and least > len(listed))


def over(param: str, what: str, most: int, unit: str) -> InvalidRequest:
    """The error for something over its limit."""
    return InvalidRequest(f"{param} {what} {most} {unit}", hint="make it smaller", param=param)


def refuse_surrogates(text: str, param: str) -> None:
    """Raises InvalidRequest for a lone surrogate, which no encoder takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{param} holds the lone surrogate U+{ord(text[error.start]):04X}",
            hint="send valid Unicode; a surrogate stands for a character only in a pair",
            param=param,
        ) from error
