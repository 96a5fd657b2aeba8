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


def checked_schema(schema: Any, limits: GrammarLimits, param: str) -> dict[str, Any]:
    """The schema as plain data, if it is within the limits and refers only to itself.

    Raises InvalidRequest; never fetches anything.
    """
    if not isinstance(schema, Mapping):
        raise InvalidRequest(
            f"{param} is a {type(schema).__name__}, not a JSON Schema object",
            hint="send an object",
            param=param,
        )
    for depth, node in _walk(schema):
        if depth > limits.schema_depth:
            raise over(param, "nests deeper than", limits.schema_depth, "levels")
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
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{param} is no JSON: {error}", hint="send plain JSON", param=param) from error
    if len(text) > limits.schema_bytes:
        raise over(param, "is longer than", limits.schema_bytes, "bytes")
    plain: dict[str, Any] = json.loads(text)
    return plain


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


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with `additionalProperties: false` wherever properties are listed and nothing is said.

    What it accepts is a subset of what the schema accepts. Schemas that add the parts of one object
    together (allOf, or alternatives beside properties) are returned as they are.
    """
    joining = ("$ref", "anyOf", "oneOf", "if")
    for _, node in _walk(schema):
        if isinstance(node, Mapping) and (
            "allOf" in node or ("properties" in node and any(key in node for key in joining))
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
    open_ended = {"additionalProperties", "unevaluatedProperties", "patternProperties"}
    if isinstance(out.get("properties"), dict) and not open_ended & out.keys():
        out["additionalProperties"] = False
    return out


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
