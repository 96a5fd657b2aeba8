"""A scripted model that fills in whatever form it is asked for, the same for the same prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pentad.execution.backend import ChoiceDone, TextDelta
from pentad.testing.backends import Item
from pentad.types import Request, ToolCall


def instance(schema: Mapping[str, Any]) -> Any:
    """The plainest value that fits a JSON Schema; lists of objects have one item where they may."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return instance(schema["anyOf"][0])
    match schema.get("type"):
        case "object":
            required = schema.get("required", ())
            return {n: instance(s) for n, s in schema.get("properties", {}).items() if n in required}
        case "array":
            plain = schema["items"].get("type") in ("integer", "number", "string")
            count = max(schema.get("minItems", 0), 0 if plain else min(1, schema.get("maxItems", 1)))
            return [instance(schema["items"]) for _ in range(count)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return "twelve"


def obedient(request: Request) -> Sequence[Item]:
    """A turn: JSON of the asked form, the first choice, the call that is demanded, or a word."""
    choice, form = request.tool_choice, request.format
    if choice.mode in ("named", "required"):
        named = next(tool for tool in request.tools if choice.name in (None, tool.name))
        arguments = json.dumps(instance(named.parameters))
        if len(f"{named.name} {arguments}".split()) > (request.sampling.max_tokens or 0):
            return [ChoiceDone(reason="length")]
        return [ToolCall(id=f"call-{request.id}", name=named.name, arguments=arguments)]
    match form.kind:
        case "json_schema":
            text = json.dumps(instance(form.value))  # type: ignore[arg-type]
        case "choice":
            text = form.value[0]  # type: ignore[index]
        case _:
            text = "The answer is twelve."
    words, most = text.split(), request.sampling.max_tokens or 0
    reason: Literal["stop", "length"] = "length" if len(words) > most else "stop"
    text = " ".join(words[:most]) if reason == "length" else text
    choices = range(request.sampling.n)
    said: list[Item] = [TextDelta(text=text, choice=i) for i in choices]
    return [*said, *(ChoiceDone(reason=reason, choice=i) for i in choices)]
