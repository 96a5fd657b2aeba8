"""ToolPins: which tools of an MCP server were seen and accepted, pinned by hash.

The first list that a server shows is accepted; from then on a tool that is new, or whose
description, schema or annotations differ, is blocked until someone approves it again. A server
can thus not turn an innocent tool into a hostile one behind its users' backs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from pentad.agent.codec import dumps, encode
from pentad.agent.spec import McpServer
from pentad.errors import Conflict


def fingerprint(tool: Mapping[str, Any]) -> str:
    """SHA-256 of everything that a tool's listing says."""
    return hashlib.sha256(dumps(tool).encode()).hexdigest()


def identity(server: McpServer) -> str:
    """What makes a server the same one: its command line or its URL, without secrets."""
    where = [server.command, *server.args] if server.command else [server.url]
    return hashlib.sha256(dumps(encode(where)).encode()).hexdigest()[:32]


class ToolPins:
    """Pins by server and tool name, in a JSON file that is replaced whole.

    Args:
        path: the file; None keeps pins for this process only.
    """

    def __init__(self, path: pathlib.Path | None = None) -> None:
        self._path = path
        self._pins: dict[str, dict[str, str]] = {}
        if path is not None and path.exists():
            self._pins = _loaded(path)

    def blocked(self, server: McpServer, listed: Mapping[str, str]) -> dict[str, str]:
        """Tools that may not be used now, with the reason; pins the whole list of a new server.

        Args:
            listed: tool name to fingerprint, as the server shows them now.
        """
        pins = self._pins.get(identity(server))
        if pins is None:
            self.approve(server, listed)
            return {}
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
        pins = dict(self._pins.get(identity(server), {}))
        pins.update({name: listed[name] for name in names})
        self._pins[identity(server)] = pins
        self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump(self._pins, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            pathlib.Path(name).replace(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                pathlib.Path(name).unlink()
            raise


def _loaded(path: pathlib.Path) -> dict[str, dict[str, str]]:
    try:
        data = json.loads(path.read_text("ascii"))
        return {str(s): {str(t): str(h) for t, h in pins.items()} for s, pins in data.items()}
    except (ValueError, AttributeError) as error:
        # Starting afresh would approve whatever the servers show now.
        raise Conflict(
            f"the tool approvals in {path.name!r} are damaged: {str(error)[:100]}",
            hint="restore the file, or delete it to approve every server's tools anew",
        ) from None
