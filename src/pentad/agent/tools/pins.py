"""ToolPins: which tools of an MCP server were seen and accepted, pinned by hash; which servers may start.

The first list that a server shows is accepted; from then on a tool that is new, or whose
description, schema or annotations differ, is blocked until someone approves it again. A server
can thus not turn an innocent tool into a hostile one behind its users' backs.
"""

from __future__ import annotations

import hashlib
import pathlib
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pentad.agent.codec import dumps, encode
from pentad.agent.spec import McpServer
from pentad.agent.tools.kept_json import KeptJson

_LAUNCHES = "launches"
"""Beside the servers' identities, which are hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListChange:
    """Tools of a server that differ from what was accepted, for a person to judge."""

    name: str
    """As the agent calls the server."""
    server: McpServer
    prints: Mapping[str, str]
    """By tool, its fingerprint now."""
    listings: Mapping[str, Any]
    """By tool, all that its listing says, as it is: whoever shows it escapes it."""
    about: str
    """What differs, in a sentence."""
    accept: Callable[[], None]
    """Pins exactly these."""


def fingerprint(tool: Mapping[str, Any]) -> str:
    """SHA-256 of everything that a tool's listing says."""
    return hashlib.sha256(dumps(tool).encode()).hexdigest()


def identity(server: McpServer) -> str:
    """What makes a server the same one: its command line or its URL, without secrets."""
    where = [server.command, *server.args] if server.command else [server.url]
    return hashlib.sha256(dumps(encode(where)).encode()).hexdigest()[:32]


def command_line(server: McpServer) -> str:
    """How a stdio server is started, as it would be typed."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in sorted(server.env.items())]
    return " ".join([*settings, shlex.join([str(server.command), *server.args])])


class ToolPins:
    """Pins by server and tool name, in a JSON file that is replaced whole and shared between processes.

    Args:
        path: the file; None keeps pins for this process only.
    """

    def __init__(self, path: pathlib.Path | None = None) -> None:
        # Starting afresh would approve whatever the servers show now.
        self._kept = KeptJson(
            path,
            what="the tool approvals",
            hint="restore the file, or delete it to approve every server's tools anew",
        )

    def blocked(self, server: McpServer, listed: Mapping[str, str]) -> dict[str, str]:
        """Tools that may not be used now, with the reason; pins the whole list of a new server.

        Args:
            listed: tool name to fingerprint, as the server shows them now.
        """
        if self.known(server):
            return self.changes(server, listed)
        self.approve(server, listed)
        return {}

    def known(self, server: McpServer) -> bool:
        """Whether a list of this server was ever accepted."""
        return self._kept.section(identity(server)) is not None

    def changes(self, server: McpServer, listed: Mapping[str, str]) -> dict[str, str]:
        """The tools that differ from what was accepted, with how; pins nothing."""
        pins = self._kept.section(identity(server)) or {}
        return {
            name: "is new" if name not in pins else "has changed"
            for name, print_ in listed.items()
            if pins.get(name) != print_
        }

    def approve(
        self, server: McpServer, listed: Mapping[str, str], only: Iterable[str] | None = None
    ) -> None:
        """Accepts the tools as they are listed; with `only`, just those."""
        names = listed if only is None else only
        self._kept.put(identity(server), {name: listed[name] for name in names})

    def may_start(self, server: McpServer) -> bool:
        """Whether a person allowed exactly this command line, with its environment."""
        return _launch(server) in (self._kept.section(_LAUNCHES) or {})

    def allow_start(self, server: McpServer) -> None:
        """Lets this command line be started from now on."""
        self._kept.put(_LAUNCHES, {_launch(server): command_line(server)})


def _launch(server: McpServer) -> str:
    whole = [server.command, list(server.args), dict(server.env)]
    return hashlib.sha256(dumps(whole).encode()).hexdigest()
