"""check_agent: whether an agent can be run, found out without models, memory or servers."""

from __future__ import annotations

from pentad.agent.context_builders.base import check_window
from pentad.agent.coordination.base import coordinator_for
from pentad.agent.spec import AgentSpec, strategies
from pentad.agent.tool_listing import unmodelled_toolset
from pentad.agent.tools.files import ToolFiles
from pentad.agent.tools.logins import Logins
from pentad.agent.tools.pins import ToolPins
from pentad.choice import build


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
    unmodelled_toolset(files, pins=ToolPins(), logins=Logins()).check(spec)
