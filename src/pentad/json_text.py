"""JSON from outside, bounded: one way to read it for all layers."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 128
"""Levels of arrays and objects. What nests deeper is no data but an attempt on whoever walks it."""


def parse_json(text: str | bytes, *, depth: int = MAX_DEPTH, strict: bool = True) -> Any:
    """The value of a JSON text that may come from anybody.

    Invariant: whatever the text, the only error is ValueError, and what comes back is safe to walk and to
    write out recursively.

    Args:
        text: JSON; bytes are UTF-8, -16 or -32.
        depth: levels that arrays and objects may nest.
        strict: False lets texts hold raw control characters, as models write them.

    Raises:
        ValueError: no JSON (RFC 8259: NaN and Infinity are none), or nested deeper than that.
    """
    try:
        value: Any = json.loads(text, strict=strict, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"it nests deeper than {depth} levels") from None
    level = [value]
    for _ in range(depth + 1):
        level = [child for node in level if isinstance(node, (dict, list)) for child in _children(node)]
        if not level:
            return value
    raise ValueError(f"it nests deeper than {depth} levels")


def _children(node: dict[str, Any] | list[Any]) -> Any:
    return node.values() if isinstance(node, dict) else node


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
