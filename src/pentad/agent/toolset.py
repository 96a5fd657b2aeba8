"""Toolset: which tools a run may use now, from the registry, the toolbox and its MCP servers."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Collection, Mapping, Sequence

from pentad.agent.environment.base import Environment, EnvironmentServices, World
from pentad.agent.events import Record
from pentad.agent.loop import FindTools
from pentad.agent.memories import Memories
from pentad.agent.options import checked_options
from pentad.agent.ports import ModelPort
from pentad.agent.rows import no_run
from pentad.agent.run import Run
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Tool, Toolbox, ToolServices
from pentad.agent.tools.files import ToolFiles, is_reference
from pentad.agent.tools.mcp import McpConnection
from pentad.agent.tools.pins import ToolPins
from pentad.choice import build
from pentad.errors import InvalidRequest, ToolFailed, UnknownName
from pentad.registry import known, load, near


class Toolset:
    """Finds tools by the names and patterns that a spec gives.

    Args:
        toolbox: registered tools; looked up afresh each time.
        models, memory: for built-in tools that need them.
        pins: tool lists of MCP servers that were accepted, and servers that may be started.
        commands: executables that stdio servers may be.
        files: Python files that tools may be taken from.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        models: ModelPort,
        memory: Memories | None,
        *,
        pins: ToolPins,
        commands: Collection[str],
        files: ToolFiles,
    ) -> None:
        self._toolbox = toolbox
        self._models, self._memory = models, memory
        self._pins = pins
        self._commands = commands
        self._files = files
        self._open: dict[str, dict[str, McpConnection]] = {}

    def check(self, spec: AgentSpec) -> None:
        """Raises UnknownName for a tool that does not exist; a pattern may match none yet.

        Raises InvalidRequest for options that a tool does not take, and for two tools of one name.
        """
        self._local(spec)

    def finder(self, run: Run) -> FindTools:
        """What the loop of one run asks before each step."""
        spec, run_id = run.state.spec, run.state.run_id
        built = self._local(spec)

        environment: Environment = build("environment", spec.environment)
        world: World | None = None

        async def find() -> Mapping[str, Tool]:
            nonlocal world
            world = world or await environment.open(services_of(run))
            found = self._registered(spec, built)
            for name, tool in (await self._remote(run_id, spec)).items():
                # What is registered here cannot be shadowed by a server.
                found.setdefault(name, tool)
            return world.tools(found)

        return find

    async def leave(self, run_id: str) -> None:
        """Closes the connections of one run."""
        for connection in self._open.pop(run_id, {}).values():
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
            opened[name] = McpConnection(name, server, self._pins, self._commands)
            await opened[name].open()
            found |= await opened[name].tools()
        return found

    def _local(self, spec: AgentSpec) -> dict[str, Tool]:
        """The built-in tools and functions that the spec names, by their entries; made once per run."""
        built: dict[str, Tool] = {}
        for name in spec.tools:
            if is_reference(name):
                _put(built, name, self._files.tool(name))
                continue
            if name in self._toolbox.names() or any(c in name for c in "*?["):
                continue
            if name not in known("tool"):
                names = [*known("tool"), *self._toolbox.names()]
                raise UnknownName(f"no tool {name!r:.200}", hint=near(name, names), param="tools")
            _put(built, name, self._build(name, spec))
        unused = [name for name in spec.tool_options if name not in spec.tools]
        if unused:
            raise InvalidRequest(
                f"tool_options has {unused[0]!r}, which is none of tools",
                hint=f"tools: {', '.join(spec.tools) or 'none'}",
                param=f"tool_options.{unused[0]}",
            )
        return built

    def _registered(self, spec: AgentSpec, built: Mapping[str, Tool]) -> dict[str, Tool]:
        """The tools of the spec in its order; the toolbox is looked up afresh, for it may have grown."""
        found: dict[str, Tool] = {}
        for name in spec.tools:
            if name in built:
                found[built[name].name] = built[name]
            for match in self._toolbox.names():
                if fnmatch.fnmatchcase(match, name):
                    found[match] = self._toolbox.get(match)
        return found

    def _build(self, name: str, spec: AgentSpec) -> Tool:
        factory = load("tool", name)
        options = checked_options(factory, spec.tool_options.get(name, {}), f"tool_options.{name}")
        memory = self._memory.of(spec) if self._memory is not None else None
        made: Tool = factory(
            ToolServices(models=self._models, memory=memory, sandbox=spec.sandbox), **options
        )
        return made


def services_of(run: Run) -> EnvironmentServices:
    """What the world of a run is opened with."""
    journal, tenant = run.around.journal, run.state.tenant

    async def read(run_id: str) -> Sequence[Record]:
        if journal.run(run_id).tenant != tenant:
            raise no_run(run_id)
        return await asyncio.to_thread(journal.read, run_id)

    return EnvironmentServices(state=run.state, read=read)


def _put(built: dict[str, Tool], entry: str, made: Tool) -> None:
    if any(made.name == other.name for other in built.values()):
        raise InvalidRequest(f"two of tools are called {made.name!r}", hint="rename one", param="tools")
    built[entry] = made
