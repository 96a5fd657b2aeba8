"""The OpenAPI document, generated from the Structs that the routes really read and write."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from pentad.application.gateway.operations import OPERATIONS, Operation


@lru_cache(maxsize=1)
def document(version: str) -> bytes:
    """The whole document as JSON."""
    structs = {
        kind
        for operation in OPERATIONS
        for kind in (operation.body, operation.answer, operation.refusal, operation.failure)
        if kind is not None
    }
    ordered = sorted(structs, key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Pentad", "version": version, "license": {"name": "Apache-2.0"}},
            "paths": paths,
            "security": [{"bearer": []}, {"header": []}],
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
        }
    )


def _operation(operation: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": f"{operation.method}{re.sub(r'[^a-zA-Z0-9]+', '_', operation.path)}",
        "summary": operation.summary,
        "responses": {
            str(operation.status): _answer(operation),
            "4XX": {"description": "Refused", "content": _content(operation.refusal)},
            "5XX": {"description": "Failed", "content": _content(operation.failure)},
        },
    }
    if operation.media == "text/event-stream":
        made["responses"]["204"] = {"description": "Nothing more to come"}
    if parameters := _parameters(operation):
        made["parameters"] = parameters
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": _content(operation.body)}
    if operation.form:
        schema = {"type": "object", "properties": dict(operation.form), "required": ["file"]}
        made["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    if operation.path == "/livez":
        made["security"] = []
    return made


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1}
    names = re.findall(r"\{(\w+)\}", operation.path)
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in names
    ]
    found += [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in operation.query
    ]
    return found


def _answer(operation: Operation) -> dict[str, Any]:
    content = {operation.media: {}} if operation.answer is None else _content(operation.answer)
    if operation.streams:
        content[operation.stream_media] = {}
    return {"description": operation.summary, "content": content}


def _content(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
