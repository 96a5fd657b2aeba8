"""Schemas of tools, maybe by strangers: bounded when they are listed, evaluated under a limit."""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pentad.errors import InvalidRequest, ToolFailed

MAX_SCHEMA_BYTES = 65_536
MAX_DEPTH = 32
MAX_EXPANDED = 4_000
"""Schemas that one value may have to fit, with every reference written out."""
MAX_CHECKS = 10_000
"""Keywords looked at for one call; some milliseconds each thousand."""
MAX_TEXT = 1024
_MAX_UNIQUE = 1_000
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords whose schemas apply to the same value again, so that they multiply."""
_PLAIN = {"type", "properties", "required", "additionalProperties", "title", "description", "$comment"}
_SCALAR = {"type", "title", "description", "default", "$comment"}
_TYPES = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
_PROSE = ("description", "title", "$comment")
_IGNORED = ("pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef")
"""Not evaluated: foreign regular expressions can run for hours, the others follow references unbounded."""


class _TooCostly(Exception):
    """The limit of checks is reached."""


def check_schema(tool: str, schema: Any) -> None:
    """Raises InvalidRequest unless `schema` is an object schema of sane size without remote references."""
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise InvalidRequest(f"tool {tool!r} has no schema of type object", param="parameters")
    try:
        size = len(json.dumps(schema))
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest(f"the schema of tool {tool!r} is no JSON") from None
    if size > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"the schema of tool {tool!r} is over {MAX_SCHEMA_BYTES} bytes")
    _walk(tool, schema, 0)
    try:
        _Expansion(tool, schema).count(schema, ())
    except RecursionError:
        raise InvalidRequest(f"the schema of tool {tool!r} has too long a chain of references") from None


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


class _Expansion:
    """Counts the schemas that apply to one value once references are followed."""

    def __init__(self, tool: str, root: Mapping[str, Any]) -> None:
        self._tool = tool
        self._root = root
        self._counts: dict[int, int] = {}

    def count(self, node: Any, following: tuple[int, ...]) -> int:
        """How many apply where `node` does; also visits all below. `following` are those being counted."""
        if not isinstance(node, Mapping):
            return 0
        if id(node) in self._counts:
            return self._counts[id(node)]
        if id(node) in following:
            raise InvalidRequest(f"the schema of tool {self._tool!r} refers to itself without end")
        inner = (*following, id(node))
        total = 1
        for word, value in node.items():
            if word == "$ref":
                target = self._target(value)
                total += 0 if target is None else self.count(target, inner)
            elif word in _IN_PLACE:
                total += sum(self.count(child, inner) for child in _schemas(word, value))
            if total > MAX_EXPANDED:
                raise InvalidRequest(
                    f"the schema of tool {self._tool!r} stands for more than {MAX_EXPANDED} schemas",
                    hint="nest fewer allOf, anyOf and $ref",
                )
        self._counts[id(node)] = total
        for word, value in node.items():
            if word not in _IN_PLACE and word != "$ref":
                self._below(value)
        return total

    def _below(self, value: Any) -> None:
        """What applies to parts of the value is counted for itself."""
        if isinstance(value, Mapping):
            self.count(value, ())
        elif isinstance(value, list | tuple):
            for child in value:
                self._below(child)

    def _target(self, reference: Any) -> Any:
        """What a local reference points at; None where it leads nowhere."""
        if not isinstance(reference, str):
            return None
        node: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping):
                node = node.get(part)
            elif isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                return None
        return node


def _schemas(word: str, value: Any) -> list[Any]:
    """The schemas that a keyword which applies in place holds."""
    if word == "dependentSchemas":
        return list(value.values()) if isinstance(value, Mapping) else []
    return list(value) if isinstance(value, list | tuple) else [value]


def harmless(text: str) -> str:
    """A description without invisible characters, which can hide instructions, and of bounded length."""
    kept = "".join(c for c in text if c in "\n\t" or not _hidden(c))
    return kept if len(kept) <= MAX_TEXT else f"{kept[:MAX_TEXT]} [cut]"


def harmless_schema(tool: str, node: Any) -> Any:
    """The schema with its prose as `harmless` leaves it.

    Raises InvalidRequest where invisible characters stand in anything else that the model reads: a
    parameter's name or a value that it may choose cannot be changed without changing the tool.
    """
    if isinstance(node, Mapping):
        return {
            _visible(tool, str(word)): harmless(value)
            if word in _PROSE and isinstance(value, str)
            else harmless_schema(tool, value)
            for word, value in node.items()
        }
    if isinstance(node, list | tuple):
        return [harmless_schema(tool, child) for child in node]
    return _visible(tool, node) if isinstance(node, str) else node


def _visible(tool: str, text: str) -> str:
    if any(_hidden(c) for c in text):
        shown = text.encode("ascii", "backslashreplace").decode()[:80]
        raise InvalidRequest(f"the schema of tool {tool!r} has invisible characters in {shown!r}")
    return text


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Co", "Cn", "Cs") and character not in "\n\t"


def check_arguments(tool: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raises ToolFailed, worded for the model, when the arguments do not fit the schema.

    What cannot be evaluated passes: a keyword that is no JSON Schema, a reference that leads nowhere,
    a pattern. Nothing is ever fetched, and no more than `MAX_CHECKS` keywords are looked at.
    """
    if plain(schema) and _fits(schema, arguments):
        return
    import referencing

    checks = _Checks()
    validator = checks.kind()(dict(schema), registry=referencing.Registry())
    try:
        problems = sorted(validator.iter_errors(dict(arguments)), key=lambda e: list(map(str, e.path)))
    except (RecursionError, _TooCostly):
        raise ToolFailed(f"the schema of tool {tool!r} is too costly for these arguments") from None
    if problems:
        first = problems[0]
        where = ".".join(map(str, first.path))
        text = f"{where}: {first.message}" if where else first.message
        raise ToolFailed(f"invalid arguments for {tool!r}: {text[:300]}")


def plain(schema: Mapping[str, Any]) -> bool:
    """Whether a schema only names scalar properties, as those of most tools do: checked in microseconds."""
    properties = schema.get("properties", {})
    return (
        schema.keys() <= _PLAIN
        and schema.get("additionalProperties", False) in (True, False)
        and isinstance(properties, Mapping)
        and all(
            isinstance(one, Mapping) and one.keys() <= _SCALAR and one.get("type") in _TYPES
            for one in properties.values()
        )
        and _strings(schema.get("required", ()))
    )


def _strings(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _fits(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Whether arguments surely fit a plain schema; what is in doubt is left to the whole of JSON Schema."""
    properties = schema.get("properties", {})
    if not arguments.keys() >= set(schema.get("required", ())):
        return False
    if not schema.get("additionalProperties", True) and not properties.keys() >= arguments.keys():
        return False
    known = [(properties[name]["type"], value) for name, value in arguments.items() if name in properties]
    return all(type(value) in _TYPES[kind] for kind, value in known)


class _Checks:
    """The keywords of JSON Schema, counted while they are evaluated."""

    def __init__(self) -> None:
        self._done = 0

    def kind(self) -> Any:
        """A validator class whose keywords count here."""
        import jsonschema

        base = jsonschema.Draft202012Validator
        words = {word: self._counted(function) for word, function in base.VALIDATORS.items()}
        words |= dict.fromkeys(_IGNORED, _passed)
        words["additionalProperties"] = self._counted(
            functools.partial(_additional, base.VALIDATORS["additionalProperties"])
        )
        words["uniqueItems"] = self._counted(functools.partial(_unique, base.VALIDATORS["uniqueItems"]))
        return jsonschema.validators.extend(base, words)

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def evaluate(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            self._done += 1
            if self._done > MAX_CHECKS:
                raise _TooCostly
            try:
                yield from function(validator, value, instance, schema) or ()
            except (_TooCostly, RecursionError, GeneratorExit):
                raise
            except Exception:
                # The keyword is not what JSON Schema says it is; whoever wrote it meant no error of ours.
                return

        return evaluate


def _passed(*_: Any) -> Iterator[Any]:
    return iter(())


def _additional(
    function: Callable[..., Any], validator: Any, value: Any, instance: Any, schema: Any
) -> Iterator[Any]:
    # Which properties are additional depends on patterns, where there are any.
    return iter(()) if schema.get("patternProperties") else function(validator, value, instance, schema)


def _unique(
    function: Callable[..., Any], validator: Any, value: Any, instance: Any, schema: Any
) -> Iterator[Any]:
    long = isinstance(instance, list) and len(instance) > _MAX_UNIQUE
    return iter(()) if long else function(validator, value, instance, schema)
