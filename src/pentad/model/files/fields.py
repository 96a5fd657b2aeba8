"""Typed access to a model file's own description, whose types and ranges nobody vouches for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pentad.errors import BadModelFile

LIMIT = (1 << 31) - 1
"""No size or count of any model comes near this."""
MAX_LAYERS = 1 << 12
"""Far above any model; a larger count is an attempt to make us build its tables."""
MAX_CONTEXT = 1 << 27
"""Likewise for positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """GGUF metadata or a `config.json`, read key by key.

    Every getter raises BadModelFile, naming source and key, for a value of another type or range,
    and for a key that is absent and has no default.
    """

    source: str
    """The file, as errors name it."""
    values: Mapping[str, Any]
    asked: dict[str, Fields | None] = field(default_factory=dict, compare=False, repr=False)
    """Keys that were read; of objects within, what was read of them."""

    def unread(self) -> Iterator[tuple[Fields, str]]:
        """Keys that nobody has asked for, and where they stand."""
        for key in self.values:
            if key not in self.asked:
                yield self, key
            elif (inner := self.asked[key]) is not None:
                yield from inner.unread()

    def fail(self, key: str, reason: str) -> NoReturn:
        raise BadModelFile(f"{self.source!r}: {key!r} {reason}")

    def has(self, key: str) -> bool:
        self.asked.setdefault(key, None)
        return self.values.get(key) is not None

    def value(self, key: str, default: Any) -> Any:
        """What stands there, unchecked; `default` when absent or null."""
        self.asked.setdefault(key, None)
        found = self.values.get(key)
        return default if found is None else found

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of so many finite positive numbers."""
        found = self.value(key, None)
        right = isinstance(found, list) and len(found) == count
        if not right or not all(type(n) in (int, float) and 0 < n < math.inf for n in found):
            self.fail(key, f"must be a list of {count} positive numbers")
        return tuple(float(n) for n in found)

    def integers(self, key: str, count: int, *, low: int = 0, high: int = LIMIT) -> tuple[int, ...]:
        """One for each of so many layers: a list of them, or a number that all have."""
        found = self.value(key, None)
        if not isinstance(found, list | tuple):
            return (self.integer(key, low=low, high=high),) * count
        right = len(found) == count and all(type(n) is int and low <= n <= high for n in found)
        if not right:
            self.fail(key, f"must be a list of {count} integers from {low} to {high}")
        return tuple(found)

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = LIMIT) -> int:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(key, f"is {_short(value)}, must be an integer from {low} to {high}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.fail(key, f"is {_short(value)}, must be a finite number")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false, which some tools write as 1 and 0."""
        value = self._value(key, default)
        if type(value) is int and value in (0, 1):
            return value == 1
        if not isinstance(value, bool):
            self.fail(key, f"is {_short(value)}, must be true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            self.fail(key, f"is {_short(value)}, must be text")
        return value

    def table(self, key: str) -> Fields:
        """The object under that key, empty when absent."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            self.fail(key, f"is {_short(value)}, must be an object")
        found = self.asked.get(key)
        if found is None:
            found = self.asked[key] = Fields(source=f"{self.source}: {key}", values=value)
        return found

    def under(self, prefix: str) -> Fields:
        """The fields whose keys begin with `prefix`, without it."""
        own = {key.removeprefix(prefix): v for key, v in self.values.items() if key.startswith(prefix)}
        return Fields(source=self.source, values=own)

    def _value(self, key: str, default: Any) -> Any:
        value = self.value(key, default)
        if value is None:
            self.fail(key, "is missing")
        return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
