"""Options that an agent file gives to a built-in tool, checked against what its factory declares."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pentad.agent.codec import Malformed, fit, unknown
from pentad.errors import InvalidRequest


def checked_options(factory: Callable[..., Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options as the factory's annotations want them. Raises InvalidRequest naming the one at fault."""
    hints = declared_options(factory)
    try:
        for name in options:
            if name not in hints:
                raise unknown(where, str(name), hints)
        return {name: fit(hints[name], value, f"{where}.{name}") for name, value in options.items()}
    except Malformed as error:
        raise InvalidRequest(str(error), param=error.path) from None


def declared_options(factory: Callable[..., Any]) -> dict[str, Any]:
    """The names of a factory's options with their annotations."""
    hints = typing.get_type_hints(factory)
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
