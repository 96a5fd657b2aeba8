"""Frozen dataclasses to JSON values and back, strictly.

Journal rows and agent files are untrusted bytes (a row may have been edited, a file mistyped),
so decoding never calls anything but the dataclass that the caller names: unknown fields, missing
fields and wrong types are refused with the path of the culprit.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union

from pentad.errors import InvalidRequest

T = TypeVar("T")
_MAX_QUOTE = 80
"""Characters of somebody else's text that an error repeats."""
_SCALARS = frozenset((str, int, float, bool, type(None)))
_SURROGATE = re.compile("[\ud800-\udfff]")


_WRITER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True)


class Malformed(ValueError):
    """A value that does not fit its declared type. `path` names where."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'value'}: {problem}")
        self.path = path
        self.problem = problem


def dumps(value: Any) -> str:
    """Canonical JSON in ASCII, so that NUL and lone surrogates survive. Raises ValueError on NaN."""
    return _WRITER.encode(value)


def encode(value: Any) -> Any:
    """The JSON value of dataclasses, mappings, sequences and scalars, nested as they are.

    Fields that are kept apart (the data of images and sounds) are left out.
    """
    if type(value) in _SCALARS:
        return value
    if (kept := _kept(type(value))) is not None:  # type: ignore[arg-type]
        fields = [(name, getattr(value, name)) for name in kept]
        # Most are scalars, and a call for each would take half of the time.
        return {name: item if type(item) in _SCALARS else encode(item) for name, item in fields}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [encode(v) for v in value]
    if isinstance(value, frozenset):
        return sorted(encode(v) for v in value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a {type(value).__name__} has no JSON form")


@functools.lru_cache(maxsize=512)
def _kept(kind: type) -> tuple[str, ...] | None:
    """The fields that are written of a dataclass; None where it is none."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(f.name for f in dataclasses.fields(kind) if "apart" not in f.metadata)


def readable(value: Any) -> Any:
    """A JSON value whose strings are valid Unicode: lone surrogates, which no stream takes, are U+FFFD."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {readable(k): readable(v) for k, v in value.items()}
    return [readable(v) for v in value] if isinstance(value, list) else value


def decode(kind: type[T], value: Any, path: str = "") -> T:
    """The dataclass `kind` that `value` describes.

    Raises:
        Malformed: an unknown or missing field, or a value of the wrong type.
    """
    if not isinstance(value, dict):
        raise Malformed(path, f"is {_called(value)}, not an object")
    hints = _hints(typing.cast(Any, kind))
    for name in value:
        if name not in hints:
            raise unknown(path, str(name), hints)
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in value:
            raise Malformed(_join(path, item.name), "is missing")
    arguments = {name: fit(hints[name], item, _join(path, name)) for name, item in value.items()}
    try:
        return kind(**arguments)
    except InvalidRequest as error:
        raise Malformed(_join(path, error.param) if error.param else path, error.message) from None
    except (TypeError, ValueError) as error:
        raise Malformed(path, str(error)) from None


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def fit(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotation `hint` wants it: lists become tuples, objects become dataclasses."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _fit_union(arguments, value, path)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool) is not isinstance(arguments[0], bool):
            near = difflib.get_close_matches(str(value), [a for a in arguments if isinstance(a, str)], n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(map(repr, arguments))
            raise Malformed(path, f"is {_quoted(value)}, not one of {known}{guess}")
        return value
    if origin in (tuple, frozenset):
        return _fit_sequence(origin, arguments, value, path)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise Malformed(path, f"is {_called(value)}, not an object")
        return {str(k): fit(arguments[1], v, _join(path, str(k))) for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), value, path)
    return _fit_scalar(hint, value, path)


def _fit_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    wanted = [option for option in options if option is not type(None)]
    problem: Malformed | None = None
    for option in wanted:
        try:
            return fit(option, value, path)
        except Malformed as error:
            problem = error if problem is None or len(error.path) > len(problem.path) else problem
    raise problem or Malformed(path, f"is {_called(value)}")


def _fit_sequence(origin: Any, arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    if not isinstance(value, list | tuple):
        raise Malformed(path, f"is {_called(value)}, not a list")
    if origin is frozenset:
        return frozenset(fit(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(fit(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if len(value) != len(arguments):
        raise Malformed(path, f"has {len(value)} items, not {len(arguments)}")
    return tuple(fit(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True)))


def _fit_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, hint):
        raise Malformed(path, f"is {_called(value)}, not {getattr(hint, '__name__', hint)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Malformed(path, f"is {value!r}, not a finite number")
    return value


def unknown(path: str, name: str, known: Iterable[str]) -> Malformed:
    """The error for a field that is none of the known ones, with the nearest of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names) or 'none'}"
    return Malformed(_join(path, name[:_MAX_QUOTE]), f"unknown field{hint}")


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_QUOTE else f"{text[:_MAX_QUOTE]}..."


def _called(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
