"""Tools of the Responses format: functions, also those in namespaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pentad.application.gateway.schemas.responses import ResponseTool
from pentad.application.gateway.translate.tools import tool_spec
from pentad.errors import InvalidRequest
from pentad.types import ToolSpec

ShownNames = Mapping[tuple[str | None, str], str]
"""Namespace and name of a function to the name that the model sees."""


def function_tools(wire: Sequence[ResponseTool], ignored: list[str]) -> tuple[ToolSpec, ...]:
    """The functions as the model sees them; what runs at its vendor is told as ignored."""
    shown = shown_names(wire)
    specs: list[ToolSpec] = []
    for where, namespace, tool in _each(wire):
        if tool.type != "function":
            ignored.append(f"{where}.type={tool.type}")
        elif not tool.name:
            raise InvalidRequest(f"{where} has no name", param=f"{where}.name")
        else:
            name = shown[namespace, tool.name]
            specs.append(tool_spec(name, tool.description, tool.parameters, where))
    return tuple(specs)


def shown_names(wire: Sequence[ResponseTool]) -> dict[tuple[str | None, str], str]:
    """The names that the model sees: a function's own, behind its namespace where two share one."""
    functions = [
        (namespace, tool.name) for _, namespace, tool in _each(wire) if tool.type == "function" and tool.name
    ]
    uses = Counter(name for _, name in functions)
    return {
        (namespace, name): f"{namespace}__{name}" if namespace and uses[name] > 1 else name
        for namespace, name in functions
    }


def _each(wire: Sequence[ResponseTool]) -> Iterator[tuple[str, str | None, ResponseTool]]:
    """Where each tool stands, its namespace if it is in one, and the tool."""
    for index, tool in enumerate(wire):
        if tool.type != "namespace":
            yield f"tools[{index}]", None, tool
            continue
        for inner, one in enumerate(tool.tools or ()):
            yield f"tools[{index}].tools[{inner}]", tool.name, one
