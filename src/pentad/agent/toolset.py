"""Toolset: which tools a run may use now, from the registry, the toolbox and its MCP servers."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping

from pentad.agent.loop import FindTools
from pentad.agent.memory.base import Memory
from pentad.agent.ports import ModelPort
from pentad.agent.run import Run
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Tool, Toolbox, ToolServices
from pentad.agent.tools.mcp import McpConnection
from pentad.agent.tools.pins import ToolPins
from pentad.errors import InvalidRequest, ToolFailed, UnknownName
from pentad.registry import known, load


class Toolset:
    """Finds tools by the names and patterns that a spec gives.

    Args:
        toolbox: registered tools; looked up afresh each time.
        models, memory: for built-in tools that need them.
        approvals: pinned tool lists of MCP servers.
        commands: executables that stdio servers may be.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        models: ModelPort,
        memory: Memory | None,
        *,
        approvals: ToolPins,
        commands: Collection[str],
    ) -> None:
        self._toolbox = toolbox
        self._services = ToolServices(models=models, memory=memory)
        self._approvals = approvals
        self._commands = commands
        self._open: dict[str, dict[str, McpConnection]] = {}

    def check(self, spec: AgentSpec) -> None:
        """Raises UnknownName for a tool that does not exist; a pattern may match none yet."""
        self._local(spec)

    def finder(self, run: Run) -> FindTools:
        """What the loop of one run asks before each step."""
        spec, run_id = run.state.spec, run.state.run_id
        built = self._local(spec)

        async def find() -> Mapping[str, Tool]:
            found = self._registered(spec, built)
            for name, tool in (await self._remote(run_id, spec)).items():
                # What is registered here cannot be shadowed by a server.
                found.setdefault(name, tool)
            return found

        return find

    async def leave(self, run_id: str) -> None:
        """Closes the connections of one run."""
        for connection in self._open.pop(run_id, {}).values():
            await connection.close()

    async def approve(self, spec: AgentSpec) -> None:
        """Accepts the tools of all the agent's MCP servers as they are now."""
        for name, server in spec.mcp_servers.items():
            connection = McpConnection(name, server, self._approvals, self._commands)
            await connection.open()
            try:
                await connection.approve()
            finally:
                await connection.close()

    async def close(self) -> None:
        """Closes everything."""
        for run_id in list(self._open):
            await self.leave(run_id)

    async def _remote(self, run_id: str, spec: AgentSpec) -> dict[str, Tool]:
        """The tools of the agent's MCP servers now; a connection that was lost is made anew once.

        Each run has its own connections, so that no session is shared between runs or tenants.
        """
        opened = self._open.setdefault(run_id, {})
        found: dict[str, Tool] = {}
        for name, server in spec.mcp_servers.items():
            if name in opened:
                try:
                    found |= await opened[name].tools()
                    continue
                except ToolFailed:
                    await opened.pop(name).close()
            opened[name] = McpConnection(name, server, self._approvals, self._commands)
            await opened[name].open()
            found |= await opened[name].tools()
        return found

    def _local(self, spec: AgentSpec) -> dict[str, Tool]:
        """The built-in tools that the spec names, made once per run. Raises UnknownName."""
        built: dict[str, Tool] = {}
        for name in spec.tools:
            if name in self._toolbox.names() or any(c in name for c in "*?["):
                continue
            if name not in known("tool"):
                names = [*known("tool"), *self._toolbox.names()]
                raise UnknownName(f"no tool {name!r}", hint=f"known: {', '.join(names)}", param="tools")
            built[name] = self._build(name, spec)
        return built

    def _registered(self, spec: AgentSpec, built: Mapping[str, Tool]) -> dict[str, Tool]:
        """The tools of the spec in its order; the toolbox is looked up afresh, for it may have grown."""
        found: dict[str, Tool] = {}
        for name in spec.tools:
            if name in built:
                found[name] = built[name]
            for match in self._toolbox.names():
                if fnmatch.fnmatchcase(match, name):
                    found[match] = self._toolbox.get(match)
        return found

    def _build(self, name: str, spec: AgentSpec) -> Tool:
        try:
            tool: Tool = load("tool", name)(self._services, **dict(spec.tool_options.get(name, {})))
        except TypeError as error:
            raise InvalidRequest(
                f"tool {name!r} does not take these options: {error}", param=f"tool_options.{name}"
            ) from None
        return tool
