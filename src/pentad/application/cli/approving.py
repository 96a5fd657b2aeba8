"""What a person allows an agent's MCP servers: to be started, and to offer their tools."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from pentad.agent.spec import AgentSpec, McpServer, team_of
from pentad.agent.tools.logins import Logins
from pentad.agent.tools.mcp import McpConnection, Review, may_start
from pentad.agent.tools.pins import ToolPins, command_line
from pentad.application.cli.output import note, plain
from pentad.application.config import Settings
from pentad.errors import Forbidden, UnknownName


def confirmed(question: str) -> bool:
    """Whether the person at the terminal says yes. Asked on standard error, so that data stays clean."""
    sys.stderr.write(f"{plain(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def servers_of(spec: AgentSpec) -> list[tuple[str, McpServer]]:
    """The MCP servers of an agent and of the members of its team, each with its name."""
    return [pair for member in team_of(spec) for pair in member.mcp_servers.items()]


def allow_programs(settings: Settings, spec: AgentSpec, named: str, *, yes: bool = False) -> None:
    """Asks, once for each command line, whether the agent may start it. Raises Forbidden for a no."""
    pins = ToolPins(settings.approvals_path)
    for name, server in servers_of(spec):
        if may_start(server, settings.mcp_commands, pins):
            continue
        line = command_line(server)
        asked = (
            f"agent {spec.name} wants to start a program as MCP server {name}: {line}\nAllow it from now on?"
        )
        if not yes and not (sys.stdin.isatty() and confirmed(asked)):
            raise Forbidden(
                f"agent {spec.name!r} may not start {line!r} (MCP server {name!r})",
                hint=f"allow it with pentad agent approve {named}, or --mcp-command {server.command}",
            )
        pins.allow_start(server)


def approve(
    settings: Settings, spec: AgentSpec, named: str, only: Sequence[str], *, yes: bool, quiet: bool
) -> list[dict[str, Any]]:
    """Shows what the agent's servers offer and accepts what the person agrees to; what was found.

    Args:
        only: prefixed names of tools; the others are left as they are.
        yes: ask nothing. quiet: show nothing.

    Raises:
        Forbidden: there is no terminal to ask at. UnknownName: no such tool. ToolFailed: no answer.
    """
    allow_programs(settings, spec, named, yes=yes)
    pins = ToolPins(settings.approvals_path)
    reviews = asyncio.run(_reviews(settings, spec, pins))
    offered = {f"{server}__{tool}" for server, review in reviews.items() for tool in review.prints}
    for name in only:
        if name not in offered:
            raise UnknownName(f"no tool {name!r}", hint=f"offered: {', '.join(sorted(offered)) or 'none'}")
    found = []
    for server, review in reviews.items():
        wanted = [tool for tool in review.changes if not only or f"{server}__{tool}" in only]
        if not quiet:
            _show(server, review)
        accepted = bool(wanted) and (yes or _agreed(server, wanted, named))
        if accepted:
            pins.approve(review.server, review.prints, only=wanted)
        found += [
            {
                "tool": f"{server}__{tool}",
                "description": review.descriptions[tool],
                "change": review.changes.get(tool),
                "approved": tool not in review.changes or (accepted and tool in wanted),
            }
            for tool in review.prints
        ]
    return found


def _agreed(server: str, wanted: Sequence[str], named: str) -> bool:
    if not sys.stdin.isatty():
        raise Forbidden(
            f"MCP server {server!r} has {len(wanted)} tools that nobody has accepted",
            hint=f"look at them, then pentad agent approve {named} --yes",
        )
    return confirmed(f"Accept {', '.join(wanted)} of {server}?")


def _show(server: str, review: Review) -> None:
    for tool, description in review.descriptions.items():
        state = review.changes.get(tool, "is accepted")
        note(plain(f"{server}__{tool} {state}: {description}"))


async def _reviews(settings: Settings, spec: AgentSpec, pins: ToolPins) -> dict[str, Review]:
    found: dict[str, Review] = {}
    logins = Logins(settings.logins_path)
    for name, server in servers_of(spec):
        connection = McpConnection(name, server, pins, settings.mcp_commands, logins=logins)
        await connection.open()
        try:
            # Members may call different servers alike; each is shown once, under a name of its own.
            known = name if name not in found or found[name].server == server else f"{name}-{len(found) + 1}"
            found[known] = await connection.review()
        finally:
            await connection.close()
    return found
