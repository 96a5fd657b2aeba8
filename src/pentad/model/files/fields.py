"""Typed access to a model file's own description, whose types and ranges nobody vouches for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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

    def fail(self, key: str, reason: str) -> NoReturn:
        raise BadModelFile(f"{self.source!r}: {key!r} {reason}")

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

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
        return Fields(source=f"{self.source}: {key}", values=value)

    def under(self, prefix: str) -> Fields:
        """The fields whose keys begin with `prefix`, without it."""
        own = {key.removeprefix(prefix): v for key, v in self.values.items() if key.startswith(prefix)}
        return Fields(source=self.source, values=own)

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            self.fail(key, "is missing")
        return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
