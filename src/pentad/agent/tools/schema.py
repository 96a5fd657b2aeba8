"""Checks of arguments against a tool's JSON Schema, on our side, whatever the tool checks itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pentad.errors import InvalidRequest, ToolFailed

MAX_SCHEMA_BYTES = 65_536
MAX_DEPTH = 32


def check_schema(tool: str, schema: Any) -> None:
    """Raises InvalidRequest unless `schema` is an object schema of sane size without remote references."""
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise InvalidRequest(f"tool {tool!r} has no schema of type object", param="parameters")
    if len(json.dumps(schema)) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"the schema of tool {tool!r} is over {MAX_SCHEMA_BYTES} bytes")
    _walk(tool, schema, 0)


def _walk(tool: str, node: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"the schema of tool {tool!r} is nested deeper than {MAX_DEPTH}")
    if isinstance(node, Mapping):
        reference = node.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise InvalidRequest(
                f"the schema of tool {tool!r} refers to {reference!r}", hint="use local references (#/...)"
            )
        for child in node.values():
            _walk(tool, child, depth + 1)
    elif isinstance(node, list | tuple):
        for child in node:
            _walk(tool, child, depth + 1)


def check_arguments(tool: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raises ToolFailed, worded for the model, when the arguments do not fit the schema.

    Patterns are not evaluated: they come from whoever wrote the tool, and Python's regular
    expressions can be made to run for hours. Nothing is ever fetched.
    """
    import jsonschema
    import referencing

    kind = jsonschema.validators.extend(
        jsonschema.Draft202012Validator, {"pattern": _ignored, "patternProperties": _ignored}
    )
    try:
        validator = kind(dict(schema), registry=referencing.Registry())
        problems = sorted(validator.iter_errors(dict(arguments)), key=lambda e: list(map(str, e.path)))
    except (RecursionError, referencing.exceptions.Unresolvable, jsonschema.SchemaError) as error:
        raise ToolFailed(f"the schema of tool {tool!r} is unusable: {type(error).__name__}") from None
    if problems:
        first = problems[0]
        where = ".".join(map(str, first.path))
        text = f"{where}: {first.message}" if where else first.message
        raise ToolFailed(f"invalid arguments for {tool!r}: {text[:300]}")


def _ignored(*_: Any) -> None:
    return None
