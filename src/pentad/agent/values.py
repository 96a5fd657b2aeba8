"""Values that change often: cheap copies, and what is derived of each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def changed(value: T, **fields: Any) -> T:
    """As `dataclasses.replace`, in a twentieth of the time, for frozen dataclasses without slots.

    Neither `__init__` nor `__post_init__` runs: only for fields that need no check.
    """
    new = object.__new__(type(value))
    new.__dict__.update(value.__dict__)
    new.__dict__.pop("_derived", None)
    new.__dict__.update(fields)
    return new


def derived(value: T, make: Callable[[T], R]) -> R:
    """What `make` makes of a frozen value, made once; a changed copy derives its own."""
    known = value.__dict__.setdefault("_derived", {})
    if make not in known:
        known[make] = make(value)
    made: R = known[make]
    return made
