"""Text formatting for templates: `%`, `format` and padding with plain values and bounded widths.

Python's own would look up attributes inside a format, call `__format__`, and make a text of any width.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.exceptions import SecurityError

MAX_WIDTH = 999
_PERCENT = re.compile(
    r"%(?:\((?P<key>[^()%]{1,100})\))?[-+ 0#]*(?P<width>\d*)(?:\.(?P<places>\d*))?(?P<kind>.?)", re.S
)
_SPEC = re.compile(r"(?:.?[<>^=])?[-+ ]?#?0?(?P<width>\d*),?(?:\.(?P<places>\d*))?[sdfFgGeEnxXobc%]?", re.S)

Plain = Callable[[Any], Any]
"""Takes a value that may be written out, and pays for it; raises for any other."""


def percent(text: str, values: Any, plain: Plain) -> str:
    """`text % values`, where only plain values are filled in. Raises SecurityError, TypeError, ValueError."""
    for match in _PERCENT.finditer(text):
        if match["kind"] not in tuple("sdifFgGeExXoc%"):
            raise SecurityError(f"text formatting knows no {match[0]!r}")
        _bounded(match)
    if isinstance(values, tuple):
        return text % tuple(plain(value) for value in values)
    if isinstance(values, Mapping):
        return text % {key: plain(value) for key, value in values.items()}
    return text % (plain(values),)


def formatted(text: str, values: tuple[Any, ...], named: Mapping[str, Any], plain: Plain) -> str:
    """`text.format(*values, **named)` with plain values. Raises SecurityError, LookupError, ValueError."""
    out: list[str] = []
    count = 0
    for literal, name, spec, conversion in string.Formatter().parse(text):
        out.append(literal)
        if name is None:
            continue
        if conversion not in (None, "s") or "{" in (spec or ""):
            raise SecurityError("format knows values and plain specifications only")
        if name == "":
            name, count = str(count), count + 1
        if not (name.isdecimal() or name.isidentifier()):
            raise SecurityError(f"format looks nothing up within {name[:40]!r}")
        value = plain(values[int(name)] if name.isdecimal() else named[name])
        match = _SPEC.fullmatch(spec or "")
        if match is None:
            raise SecurityError(f"format knows no {spec!r}")
        _bounded(match)
        number = isinstance(value, (int, float)) and conversion is None
        out.append(format(value if number else str(value), spec or ""))
    return "".join(out)


def padded(text: str, method: str, width: Any, fill: str = " ") -> str:
    """`text.center(width, fill)` and its like."""
    if not isinstance(width, int) or width > MAX_WIDTH:
        raise SecurityError(f"{method} takes a width of at most {MAX_WIDTH}")
    out: str = text.zfill(width) if method == "zfill" else getattr(text, method)(width, fill)
    return out


def _bounded(match: re.Match[str]) -> None:
    for part in ("width", "places"):
        if len(match[part] or "") > 3:
            raise SecurityError(f"text formatting takes a width of at most {MAX_WIDTH}")
