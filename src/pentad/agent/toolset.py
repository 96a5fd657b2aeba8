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
from pentad.agent.tool_reviews import ToolReviews
from pentad.agent.tools.base import Tool, Toolbox, ToolServices
from pentad.agent.tools.files import ToolFiles, is_reference
from pentad.agent.tools.function_files import function_tools, is_function_file
from pentad.agent.tools.logins import Logins
from pentad.agent.tools.mcp import McpConnection
from pentad.agent.tools.pins import ListChange, ToolPins
from pentad.agent.tools.wrapping.base import ToolWrapper, WrapperServices, Wrapping
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest, ToolFailed, UnknownName
from pentad.registry import known, load, near


class Toolset:
    """Finds tools by the names and patterns that a spec gives.

    Args:
        toolbox: registered tools; looked up afresh each time.
        models, memory: for built-in tools that need them.
        pins: tool lists of MCP servers that were accepted, and servers that may be started.
        logins: what came of signing in to MCP servers.
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
        logins: Logins,
        commands: Collection[str],
        files: ToolFiles,
    ) -> None:
        self._toolbox = toolbox
        self._models, self._memory = models, memory
        self._pins, self._logins = pins, logins
        self._commands = commands
        self._files = files
        self._open: dict[str, dict[str, McpConnection]] = {}
        self._wrappings: dict[str, Wrapping] = {}

    def check(self, spec: AgentSpec) -> None:
        """Raises UnknownName for a tool that does not exist; a pattern may match none yet.

        Raises InvalidRequest for options that a tool does not take, and for two tools of one name.
        """
        self._local(spec)

    def finder(self, run: Run) -> FindTools:
        """What the loop of one run asks before each step.

        Where a server lists tools that differ from those accepted, the run waits there for a person.
        """
        spec, run_id = run.state.spec, run.state.run_id
        built = self._local(spec)

        wrapping = self._wrapping(spec.wrap)
        environment: Environment = build("environment", spec.environment)
        world: World | None = None
        reviews = ToolReviews(run)

        async def listed() -> Mapping[str, Tool]:
            nonlocal world
            world = world or await environment.open(services_of(run))
            found = await self._found(run_id, spec, built)
            return world.tools({name: wrapping.wrap(tool) for name, tool in found.items()})

        async def find() -> Mapping[str, Tool]:
            while True:
                with run.span("agent", "tools"):
                    found = await listed()
                # In a record or a simulation no server's tool is called.
                changes = self._changes(run_id) if environment.name == "local" else []
                if not changes or not await reviews.settle(changes):
                    return found

        return find

    async def listed(self, run_id: str, spec: AgentSpec) -> dict[str, Tool]:
        """The agent's own tools as they are, without wrappers and without those of an environment.

        Connections to its servers are kept under this id until `leave`. Raises as `check` does; Forbidden,
        ToolFailed for a server.
        """
        return await self._found(run_id, spec, self._local(spec))

    async def leave(self, run_id: str) -> None:
        """Closes the connections of one run."""
        for connection in self._open.pop(run_id, {}).values():
            await connection.close()

    async def close(self) -> None:
        """Closes everything."""
        for run_id in list(self._open):
            await self.leave(run_id)
        for wrapping in self._wrappings.values():
            await asyncio.to_thread(wrapping.close)
        self._wrappings.clear()

    async def _found(self, run_id: str, spec: AgentSpec, built: Mapping[str, Tool]) -> dict[str, Tool]:
        found = self._registered(spec, built)
        for name, tool in (await self._remote(run_id, spec)).items():
            # What is registered here cannot be shadowed by a server.
            found.setdefault(name, tool)
        return found

    def _wrapping(self, choice: Choice) -> Wrapping:
        """What agents of this process that chose the same share: the results of one serve the other."""
        key = str(choice)
        if key not in self._wrappings:
            wrapper: ToolWrapper = build("tool_wrapper", choice)
            self._wrappings[key] = wrapper.open(WrapperServices(models=self._models))
        return self._wrappings[key]

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
            opened[name] = McpConnection(name, server, self._pins, self._commands, logins=self._logins)
            await opened[name].open()
            found |= await opened[name].tools()
        return found

    def _changes(self, run_id: str) -> list[ListChange]:
        """What the servers of a run list otherwise than was accepted."""
        connections = self._open.get(run_id, {}).values()
        return [change for connection in connections if (change := connection.change) is not None]

    def _local(self, spec: AgentSpec) -> dict[str, Tool]:
        """The built-in tools and functions that the spec names, by their entries; made once per run."""
        built: dict[str, Tool] = {}
        for name in spec.tools:
            if is_reference(name):
                _put(built, name, self._files.tool(name))
                continue
            if is_function_file(name):
                for made in function_tools(name, spec.sandbox):
                    _put(built, f"{name}:{made.name}", made)
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
            own = f"{name}:" if is_function_file(name) else None
            for entry, made in built.items():
                if entry == name or (own is not None and entry.startswith(own)):
                    found[made.name] = made
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
