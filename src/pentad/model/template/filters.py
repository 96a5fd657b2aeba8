"""Filters and text methods of our own, where others could grow without bound or show our insides."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import Environment
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.runtime import Undefined

from pentad.model.template.formatting import formatted, padded, percent
from pentad.model.template.meter import Meter

MAX_INDENT = 16
MAX_BATCH = 1_000
PLAIN = (str, int, float, bool, type(None), list, tuple, dict, Undefined)
_PASSING: tuple[type, ...] = (Iterator, type({}.keys()), type({}.values()), type({}.items()), range)


def check_plain(value: Any) -> None:
    """Objects of the template engine must not be handed on: their text shows our insides."""
    if not isinstance(value, (*PLAIN, *_PASSING)):
        raise SecurityError(f"a {type(value).__name__} is not data")


def check_text(value: Any) -> None:
    """What is written out must have a text: that of a generator is its address in memory."""
    check_plain(value)
    if isinstance(value, Iterator):
        raise SecurityError(f"a {type(value).__name__} cannot be written; use the filter list or join")


class Filters:
    """The filters of one sandbox, under the meter of the rendering that this thread is in.

    Args:
        environment: for looking up attributes.
        meter: the present meter.
        built: weighs a value that was made and checks its parts.
        add: the sandbox's `+`.
    """

    def __init__(
        self,
        environment: Environment,
        meter: Callable[[], Meter],
        built: Callable[[Any], Any],
        add: Callable[[Any, Any], Any],
    ) -> None:
        self._environment = environment
        self._meter = meter
        self._built = built
        self._add = add
        self.by_name: dict[str, Callable[..., Any]] = {
            "tojson": self.tojson,
            "join": self.join,
            "replace": self.replace,
            "indent": self.indent,
            "format": lambda text, *values, **named: self.percent(text, named or values),
            "sum": self.sum,
            "batch": self.batch,
        }
        self.of_text: dict[str, Callable[..., Any]] = {
            "replace": self.replace,
            "join": lambda text, items: self.join(items, text),
            "format": self.format,
        }
        """Methods of texts that are called through here."""
        for name in ("center", "ljust", "rjust", "zfill"):
            self.of_text[name] = functools.partial(self.pad, name)

    def metered(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, each paid for as it is taken."""
        meter = self._meter()
        for item in items:
            meter.charge(1)
            yield item

    def tojson(
        self, value: Any, indent: int | None = None, ensure_ascii: bool = False, **options: Any
    ) -> str:
        if unknown := set(options) - {"separators", "sort_keys"}:
            raise SecurityError(f"tojson has no option {sorted(unknown)[0]!r}")
        if indent is not None and not 0 <= int(indent) <= MAX_INDENT:
            raise SecurityError(f"tojson indents by 0 to {MAX_INDENT} spaces")
        check_text(value)
        self._meter().charge(4 * self._meter().weigh(value))
        return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, **options)

    def join(self, value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        texts = [self._text(item) for item in self._items(value, attribute)]
        self._meter().charge_chars(sum(map(len, texts)) + len(str(d)) * len(texts))
        return str(d).join(texts)

    def percent(self, text: Any, values: Any) -> Any:
        """`text % values`."""
        return self._built(percent(self._text(text), values, self._paid))

    def format(self, text: str, *values: Any, **named: Any) -> Any:
        """`text.format(...)`."""
        self._meter().charge_chars(len(text))
        return self._built(formatted(text, values, named, self._paid))

    def pad(self, method: str, text: str, *args: Any) -> str:
        self._meter().charge_chars(len(text))
        return padded(text, method, *args)

    def sum(self, items: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
        total = start
        for value in self._items(items, attribute):
            total = self._add(total, value)
        return total

    def batch(self, items: Iterable[Any], linecount: int, fill_with: Any = None) -> Iterator[list[Any]]:
        if not 1 <= linecount <= MAX_BATCH:
            raise SecurityError(f"batch takes 1 to {MAX_BATCH} items a line")
        line: list[Any] = []
        for item in self.metered(items):
            line.append(item)
            if len(line) == linecount:
                yield self._built(line)
                line = []
        if line:
            fill = [] if fill_with is None else [fill_with] * (linecount - len(line))
            yield self._built([*line, *fill])

    def replace(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        source, old, new = self._text(text), str(old), str(new)
        found = source.count(old) if count is None else min(count, source.count(old))
        self._meter().charge_chars(len(source) + max(found, 0) * len(new))
        return source.replace(old, new, -1 if count is None else count)

    def indent(self, text: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
        source = self._text(text)
        if not 0 <= int(width) <= MAX_INDENT:
            raise SecurityError(f"indent takes 0 to {MAX_INDENT} spaces")
        self._meter().charge_chars(len(source) + (source.count("\n") + 1) * int(width))
        lines = source.split("\n")
        pad = " " * int(width)
        out = [pad + line if (blank or line) and (i or first) else line for i, line in enumerate(lines)]
        return "\n".join(out)

    def _items(self, items: Iterable[Any], attribute: str | int | None) -> Iterable[Any]:
        taken = self.metered(items)
        return taken if attribute is None else map(make_attrgetter(self._environment, attribute), taken)

    def _text(self, value: Any) -> str:
        return str(self._paid(value))

    def _paid(self, value: Any) -> Any:
        check_text(value)
        self._meter().charge(self._meter().weigh(value))
        return value
