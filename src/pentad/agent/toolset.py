"""Toolset: which tools a run may use now, from the registry, the toolbox and its MCP servers."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from pentad.agent.loop import FindTools
from pentad.agent.memory.base import Memory
from pentad.agent.ports import ModelPort
from pentad.agent.run import Run
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Tool, Toolbox, ToolServices
from pentad.errors import InvalidRequest, UnknownName
from pentad.registry import known, load


class Toolset:
    """Finds tools by the names and patterns that a spec gives.

    Args:
        toolbox: registered tools; looked up afresh each time.
        models, memory: for built-in tools that need them.
    """

    def __init__(self, toolbox: Toolbox, models: ModelPort, memory: Memory | None) -> None:
        self._toolbox = toolbox
        self._services = ToolServices(models=models, memory=memory)
        self._built: dict[str, Mapping[str, Tool]] = {}

    def check(self, spec: AgentSpec) -> None:
        """Raises UnknownName for a tool that does not exist; a pattern may match none yet."""
        self._local(spec)

    def finder(self, run: Run) -> FindTools:
        """What the loop of one run asks before each step."""

        async def find() -> Mapping[str, Tool]:
            return self._local(run.state.spec)

        return find

    async def leave(self, run_id: str) -> None:
        """Gives back what one run held."""
        self._built.pop(run_id, None)

    async def close(self) -> None:
        """Gives back everything."""
        self._built.clear()

    def _local(self, spec: AgentSpec) -> dict[str, Tool]:
        found: dict[str, Tool] = {}
        for name in spec.tools:
            if any(c in name for c in "*?["):
                for match in self._toolbox.names():
                    if fnmatch.fnmatchcase(match, name):
                        found[match] = self._toolbox.get(match)
            elif name in self._toolbox.names():
                found[name] = self._toolbox.get(name)
            elif name in known("tool"):
                found[name] = self._build(name, spec)
            else:
                names = [*known("tool"), *self._toolbox.names()]
                raise UnknownName(f"no tool {name!r}", hint=f"known: {', '.join(names)}", param="tools")
        return found

    def _build(self, name: str, spec: AgentSpec) -> Tool:
        try:
            tool: Tool = load("tool", name)(self._services, **dict(spec.tool_options.get(name, {})))
        except TypeError as error:
            raise InvalidRequest(
                f"tool {name!r} does not take these options: {error}", param=f"tool_options.{name}"
            ) from None
        return tool
