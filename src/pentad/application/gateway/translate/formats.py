"""The constraint on an answer's text, from response_format or vLLM's structured_outputs."""

from __future__ import annotations

from typing import Any

import msgspec

from pentad.application.gateway.body import check_free_form
from pentad.application.gateway.schemas.chat import ResponseFormat
from pentad.application.gateway.schemas.common import StructuredOutputs
from pentad.errors import InvalidRequest
from pentad.types import OutputFormat


def output_format(wire: ResponseFormat | None, extra: StructuredOutputs | None) -> OutputFormat:
    """The constraint on the text, from response_format or vLLM's structured_outputs."""
    if extra is not None:
        return structured(extra)
    if wire is None or wire.type == "text":
        return OutputFormat()
    if wire.type == "json_object":
        return json_schema(wire.schema, "response_format.schema")
    if wire.json_schema is None:
        raise InvalidRequest(
            "response_format 'json_schema' without json_schema", param="response_format.json_schema"
        )
    where = "response_format.json_schema.schema"
    return json_schema(wire.json_schema.schema, where, strict=wire.json_schema.strict)


def json_schema(schema: dict[str, Any] | None, where: str, *, strict: bool | None = None) -> OutputFormat:
    """The constraint to one schema; without a schema, to any object."""
    if schema is None:
        return OutputFormat(kind="json_object")
    check_free_form(schema, where)
    return OutputFormat(kind="json_schema", value=schema, strict=strict)


def structured(wire: StructuredOutputs) -> OutputFormat:
    """vLLM's object; exactly one of its fields may be set."""
    given = {
        name: value
        for name in ("json", "regex", "choice", "grammar", "json_object")
        if (value := getattr(wire, name)) not in (None, False)
    }
    if len(given) != 1:
        raise InvalidRequest(
            f"structured_outputs has {len(given)} constraints; it takes exactly one of json, regex, "
            "choice, grammar, json_object",
            param="structured_outputs",
        )
    match next(iter(given)):
        case "json":
            return json_schema(_schema_object(wire.json), "structured_outputs.json")
        case "regex":
            return OutputFormat(kind="regex", value=wire.regex)
        case "choice":
            return OutputFormat(kind="choice", value=wire.choice)
        case "grammar":
            return OutputFormat(kind="grammar", value=wire.grammar)
        case _:
            return OutputFormat(kind="json_object")


def _schema_object(value: dict[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    try:
        parsed = msgspec.json.decode(value or "")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidRequest(
            "structured_outputs.json is no JSON Schema object", param="structured_outputs.json"
        )
    return parsed
