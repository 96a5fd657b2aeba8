"""Random tool schemas and random arguments that fit them, from a seed."""

from __future__ import annotations

import json
import random
from typing import Any

from pentad.types import ToolSpec

LETTERS = "abz AZ09_-\"\\/{}[]<>:,'\n\t\u00e9\u65e5\U0001f469\u200d\u2028"
WORDS = ("city", "unit", "count", "query", "tags", "when", "limit", "nested", "flag", "ratio", "naïve", "a b")

FORMED = (
    ({"pattern": r"^[A-Z]{2}-\d{1,4}$"}, "AB-123"),
    ({"pattern": "^(a|é)[^0-9<]{0,5}$"}, "é b"),
    ({"format": "date"}, "2024-02-29"),
    ({"format": "ipv4"}, "10.0.0.1"),
    ({"format": "uuid"}, "123e4567-e89b-12d3-a456-426614174000"),
)
"""What else a schema asks of a text, each with one that fits."""


def schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """A bounded schema: every answer that fits it is short."""
    kinds = ["string", "integer", "number", "boolean", "enum", "null", "anyOf"]
    if depth < 2:
        kinds += ["array", "object", "object"]
    match rng.choice(kinds):
        case "enum":
            return {"enum": rng.sample(["red", "green", 3, None, True, "</tool_call>", 'q"'], 3)}
        case "anyOf":
            return {
                "anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "string", "maxLength": 5}]
            }
        case "string" if rng.random() < 0.3:
            return {"type": "string", **rng.choice(FORMED)[0]}
        case "string":
            return {"type": "string", "maxLength": rng.randint(0, 12)}
        case "array":
            return {"type": "array", "items": schema(rng, depth + 1), "maxItems": rng.randint(0, 3)}
        case "object":
            return object_schema(rng, depth + 1)
        case "integer":
            return {"type": "integer", "minimum": -50, "maximum": 1000}
        case "number":
            return {"type": "number", "minimum": -1, "maximum": 1}
        case kind:
            return {"type": kind}


def object_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    names = rng.sample(WORDS, rng.randint(0 if depth else 1, 4))
    required = [name for name in names if rng.random() < 0.6]
    return {
        "type": "object",
        "properties": {name: schema(rng, depth) for name in names},
        "required": required,
        "additionalProperties": False,
    }


def value(rng: random.Random, shape: dict[str, Any]) -> Any:
    """Something that fits the schema."""
    if "enum" in shape:
        return rng.choice(shape["enum"])
    if "anyOf" in shape:
        return value(rng, rng.choice(shape["anyOf"]))
    match shape["type"]:
        case "string" if "maxLength" not in shape:
            return next(text for form, text in FORMED if form.items() <= shape.items())
        case "string":
            return "".join(rng.choice(LETTERS) for _ in range(rng.randint(0, shape["maxLength"])))
        case "integer":
            return rng.randint(shape["minimum"], shape["maximum"])
        case "number":
            return round(rng.uniform(-1, 1), 3)
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
        case "array":
            return [value(rng, shape["items"]) for _ in range(rng.randint(0, shape["maxItems"]))]
    chosen = [n for n in shape["properties"] if n in shape["required"] or rng.random() < 0.5]
    return {name: value(rng, shape["properties"][name]) for name in chosen}


def tool(rng: random.Random, index: int) -> ToolSpec:
    return ToolSpec(name=f"tool_{index}", description="does things", parameters=object_schema(rng))


def written(rng: random.Random, arguments: Any) -> str:
    """The arguments as JSON, in one of the ways that models write it."""
    ways: list[dict[str, Any]] = [
        {},
        {"ensure_ascii": False},
        {"separators": (",", ":")},
        {"indent": 2, "ensure_ascii": False},
    ]
    return json.dumps(arguments, **rng.choice(ways))
