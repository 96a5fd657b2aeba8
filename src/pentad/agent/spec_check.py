"""check_agent: whether an agent can be run, found out without models, memory or servers."""

from __future__ import annotations

from typing import Any, cast

from pentad.agent.memory.base import Memory
from pentad.agent.ports import ModelPort
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Toolbox
from pentad.agent.tools.files import ToolFiles
from pentad.agent.tools.pins import ToolPins
from pentad.agent.toolset import Toolset
from pentad.agent.worker import planner_for


class _Nothing:
    """In place of what tools are made with; making them asks it only which models there are."""

    def models(self) -> tuple[Any, ...]:
        return ()


def check_agent(spec: AgentSpec, files: ToolFiles) -> None:
    """Raises what starting a run of the agent would: unknown tools or planner, options that do not fit.

    Python files of its tools are loaded. MCP servers are not started.
    """
    files.allow(spec)
    planner_for(spec)
    nothing = _Nothing()
    tools = Toolset(
        Toolbox(),
        cast(ModelPort, nothing),
        cast(Memory, nothing),
        pins=ToolPins(),
        commands=(),
        files=files,
    )
    tools.check(spec)
