"""What kinds of JSON value a schema admits: formats that write texts without quotes have to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Kind = Literal["text", "json", "mixed"]
"""Only strings, no strings, or both."""

ALL: frozenset[str] = frozenset({"string", "number", "boolean", "null", "array", "object"})
MAX_DEPTH = 16
"""References and alternatives that are followed; what lies deeper may be anything."""


def resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, its reference within `root` followed; an empty one where it says nothing readable."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = _looked_up(reference, root)
    return {}


def _looked_up(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for step in reference.removeprefix("#").strip("/").split("/") if reference != "#" else []:
        step = step.replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def type_names(schema: Mapping[str, Any]) -> list[str]:
    """The values of `type`, as a list; empty where it is left open."""
    named = schema.get("type")
    return [named] if isinstance(named, str) else list(named) if isinstance(named, (list, tuple)) else []


def alternatives(schema: Mapping[str, Any]) -> Sequence[Any]:
    """The branches of `anyOf` or `oneOf`; empty where there are none."""
    found = schema.get("anyOf") or schema.get("oneOf")
    return found if isinstance(found, (list, tuple)) else ()


def admitted(schema: Any, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """The JSON types of the values that fit; `integer` counts as `number`."""
    schema = resolved(schema, root)
    if depth > MAX_DEPTH:
        return ALL
    found = ALL
    if names := type_names(schema):
        found &= {"number" if name == "integer" else name for name in names}
    if (values := listed_values(schema)) is not None:
        found &= {_type_of(value) for value in values}
    if branches := alternatives(schema):
        found &= frozenset().union(*(admitted(branch, root, depth + 1) for branch in branches))
    for branch in schema.get("allOf") or ():
        found &= admitted(branch, root, depth + 1)
    return found


def kind_of(schema: Any, root: Mapping[str, Any]) -> Kind:
    """Whether values of the schema are texts, anything but texts, or either."""
    types = admitted(schema, root)
    return "text" if types == {"string"} else "mixed" if "string" in types else "json"


def text_branches(schema: Any, root: Mapping[str, Any], depth: int = 0) -> list[Mapping[str, Any]]:
    """The schemas without alternatives, of those that the schema offers, that admit texts."""
    schema = resolved(schema, root)
    branches = alternatives(schema)
    if branches and depth < MAX_DEPTH:
        return [leaf for branch in branches for leaf in text_branches(branch, root, depth + 1)]
    return [schema] if "string" in admitted(schema, root) else []


def listed_values(schema: Mapping[str, Any]) -> Sequence[Any] | None:
    """The values of `const` or `enum`; None where the schema lists none."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return listed if isinstance(listed, (list, tuple)) else None


def member_schema(key: str, schema: Any, root: Mapping[str, Any]) -> Any:
    """The schema of the member under that key of an object."""
    schema = resolved(schema, root)
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and key in properties:
        return properties[key]
    more = schema.get("additionalProperties")
    return more if isinstance(more, Mapping) else {}


def rooted(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema as one of its own, which takes along the definitions that its references need."""
    own = dict(schema) if isinstance(schema, Mapping) else {}
    return {**{key: root[key] for key in ("$defs", "definitions") if key in root}, **own}


def text_lengths(schema: Mapping[str, Any]) -> tuple[int, int | None]:
    """The least and the greatest number of characters of a text."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    return least if isinstance(least, int) else 0, most if isinstance(most, int) else None


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
    return "object"
