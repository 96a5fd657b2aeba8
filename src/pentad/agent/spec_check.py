"""check_agent: whether an agent can be run, found out without models, memory or servers."""

from __future__ import annotations

from typing import Any, cast

from pentad.agent.context_builders.base import check_window
from pentad.agent.coordination.base import coordinator_for
from pentad.agent.memories import Memories
from pentad.agent.ports import ModelPort
from pentad.agent.spec import AgentSpec, strategies
from pentad.agent.tools.base import Toolbox
from pentad.agent.tools.files import ToolFiles
from pentad.agent.tools.pins import ToolPins
from pentad.agent.toolset import Toolset
from pentad.choice import build


class _Nothing:
    """In place of what tools are made with; making them asks it only which models there are."""

    def models(self) -> tuple[Any, ...]:
        return ()

    def of(self, _: AgentSpec) -> _Nothing:
        return self


def check_strategies(spec: AgentSpec) -> None:
    """Raises UnknownName or InvalidRequest for a strategy that there is not, or options that do not fit.

    So it does for a team without its coordinator, or a coordinator without its team.
    """
    coordinator_for(spec)
    for family, choice in strategies(spec):
        strategy = build(family, choice)
        if family == "context":
            check_window(strategy, spec.memory.window)
        if family == "environment":
            strategy.check()


def check_agent(spec: AgentSpec, files: ToolFiles) -> None:
    """Raises what starting a run of the agent would: unknown tools or strategies, options that do not fit.

    Python files of its tools are loaded. MCP servers are not started.
    """
    files.allow(spec)
    for member in spec.agents.values():
        check_agent(member, files)
    check_strategies(spec)
    nothing = _Nothing()
    tools = Toolset(
        Toolbox(),
        cast(ModelPort, nothing),
        cast(Memories, nothing),
        pins=ToolPins(),
        commands=(),
        files=files,
    )
    tools.check(spec)
