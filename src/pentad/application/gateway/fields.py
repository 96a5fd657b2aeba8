"""Which fields of a body nobody here reads."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import msgspec

MAX_UNKNOWN = 64
"""Unread fields that are told apart; the header shows fewer."""

Walk = Callable[[Any, str], Iterator[str]]
_PLAIN = frozenset({str, int, float, bool, type(None), dict, list})


def unread(value: Any, kind: type[msgspec.Struct]) -> list[str]:
    """Paths of the fields that the Struct, or one inside it, does not have; each once.

    Elements of a list share their path: `messages[].weight`. What a field of free form holds is
    all read.

    Args:
        value: the body as plain JSON values, which decodes as `kind`.
        kind: what reads it.
    """
    found: dict[str, None] = {}
    for path in _struct(kind)(value, ""):
        found[path] = None
        if len(found) >= MAX_UNKNOWN:
            break
    return list(found)


@cache
def _struct(kind: type[msgspec.Struct]) -> Walk:
    """Walks an object that the Struct decodes."""
    annotations = typing.get_type_hints(kind)
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    inner = {
        field.encode_name: walk
        for field in msgspec.structs.fields(kind)
        if (walk := _walk(annotations[field.name])) is not None
    }

    def walk_object(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            return
        for name, part in value.items():
            if name not in known:
                yield path + name
            elif name in inner and part is not None:
                yield from inner[name](part, f"{path}{name}")

    return walk_object


def _walk(annotation: Any) -> Walk | None:
    """How to look for unread fields in a value of this type; None where it can hold none."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return lambda value, path: _struct(annotation)(value, f"{path}.")  # on use: Structs may nest
    if annotation in _PLAIN or typing.get_origin(annotation) is typing.Literal:
        return None
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is list:
        element = _walk(arguments[0])
        return None if element is None else _each(element)
    if origin in (typing.Union, types.UnionType):
        options = [walk for one in arguments if (walk := _walk(one)) is not None]
        return _first_of(options) if options else None
    return None


def _each(element: Walk) -> Walk:
    def walk_list(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, list):
            for one in value:
                yield from element(one, f"{path}[]")

    return walk_list


def _first_of(options: list[Walk]) -> Walk:
    """Of a union at most one option takes the value: an object's walk ignores lists, and conversely."""

    def walk_union(value: Any, path: str) -> Iterator[str]:
        for option in options:
            yield from option(value, path)

    return walk_union
