"""Call trees: a call whose missing arguments are results of other calls, and the order to make them in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pentad.agent.planning.base import Needs
from pentad.agent.planning.call_plan import CallPlan
from pentad.types import ToolCall

FROM = "from"
"""The key of an argument that is no value, but names the tool whose result is the value."""


@dataclass(slots=True, kw_only=True)
class CallNode:
    """A call of the tree; `values` is None until its arguments are filled in."""

    tool: str
    wanted_as: tuple[str, ...] = ()
    """The tools above it, the nearest last, and then the parameter that its result is for."""
    values: Mapping[str, Any] | None = None
    sources: dict[str, CallNode] = field(default_factory=dict)
    """By parameter, the calls whose results are its missing arguments."""

    @property
    def above(self) -> tuple[str, ...]:
        """The tools on the way to it, without itself."""
        return self.wanted_as[:-1]

    def fill(self, arguments: Mapping[str, Any]) -> None:
        """Takes what the model wrote: values, and `{"from": tool}` where a value is missing."""
        self.values = {name: value for name, value in arguments.items() if source_of(value) is None}
        for name, value in arguments.items():
            tool = source_of(value)
            if tool is not None:
                self.sources[name] = CallNode(tool=tool, wanted_as=(*self.above, self.tool, name))

    def walk(self) -> Iterator[CallNode]:
        """The node and all below it, a node before its sources."""
        yield self
        for source in self.sources.values():
            yield from source.walk()

    @property
    def unfilled(self) -> tuple[CallNode, ...]:
        """Calls without arguments yet, in the order in which they are filled in."""
        return tuple(node for node in self.walk() if node.values is None)

    def plan(self, prefix: str) -> CallPlan:
        """The calls, each after those that it needs, equal ones once; ids begin with `prefix`."""
        calls: list[ToolCall] = []
        needs: list[tuple[int, ...]] = []
        places: dict[tuple[str, str], int] = {}

        def put(node: CallNode) -> int:
            made = {name: put(source) for name, source in node.sources.items()}
            arguments = {**(node.values or {}), **{name: f"${place + 1}" for name, place in made.items()}}
            text = json.dumps(arguments, ensure_ascii=False)
            if (node.tool, text) not in places:
                places[node.tool, text] = len(calls)
                calls.append(ToolCall(id=f"{prefix}{len(calls)}", name=node.tool, arguments=text))
                needs.append(tuple(sorted(set(made.values()))))
            return places[node.tool, text]

        put(self)
        found: Needs = tuple(needs)
        return CallPlan(calls=tuple(calls), needs=found)


def source_of(value: Any) -> str | None:
    """The tool that an argument names in place of a value; None for a value."""
    named = value[FROM] if isinstance(value, dict) and set(value) == {FROM} else None
    return named if isinstance(named, str) else None
