"""tools_of: the tools of an agent, found without a run and without models."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from pentad.agent.memories import Memories
from pentad.agent.ports import ModelPort
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Tool, Toolbox
from pentad.agent.tools.files import ToolFiles
from pentad.agent.tools.logins import Logins
from pentad.agent.tools.pins import ToolPins
from pentad.agent.toolset import Toolset

_ALONE = "listing"


class _Nothing:
    """In place of what tools are made with; making them asks it only which models there are."""

    def models(self) -> tuple[Any, ...]:
        return ()

    def of(self, _: AgentSpec) -> _Nothing:
        return self


def unmodelled_toolset(
    files: ToolFiles, *, pins: ToolPins, logins: Logins, commands: Collection[str] = ()
) -> Toolset:
    """Tools that can be looked at, and not called where they need a model or a memory."""
    nothing = _Nothing()
    return Toolset(
        Toolbox(),
        cast(ModelPort, nothing),
        cast(Memories, nothing),
        pins=pins,
        logins=logins,
        commands=commands,
        files=files,
    )


async def tools_of(
    spec: AgentSpec, *, pins: ToolPins, logins: Logins, commands: Collection[str]
) -> dict[str, Tool]:
    """What a run of the agent could call, by name, those of its MCP servers included.

    Files of its tools are loaded, and its servers are started, or asked, and left.

    Raises InvalidRequest and UnknownName as starting a run does; Forbidden, ToolFailed for a server.
    """
    files = ToolFiles()
    files.allow(spec)
    toolset = unmodelled_toolset(files, pins=pins, logins=logins, commands=commands)
    try:
        return await toolset.listed(_ALONE, spec)
    finally:
        await toolset.leave(_ALONE)
        await toolset.close()
