"""ToolPins: which tools of an MCP server were seen and accepted, pinned by hash; which servers may start.

The first list that a server shows is accepted; from then on a tool that is new, or whose
description, schema or annotations differ, is blocked until someone approves it again. A server
can thus not turn an innocent tool into a hostile one behind its users' backs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pentad.agent.codec import dumps, encode
from pentad.agent.spec import McpServer
from pentad.errors import Conflict
from pentad.json_text import parse_json

_LAUNCHES = "launches"
"""Beside the servers' identities, which are hexadecimal."""


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
        self._path = path
        self._pins: dict[str, dict[str, str]] = {}
        self._stamp: tuple[int, int] | None = None
        self._look()

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
        self._look()
        return identity(server) in self._pins

    def changes(self, server: McpServer, listed: Mapping[str, str]) -> dict[str, str]:
        """The tools that differ from what was accepted, with how; pins nothing."""
        self._look()
        pins = self._pins.get(identity(server), {})
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
        self._put(identity(server), {name: listed[name] for name in names})

    def may_start(self, server: McpServer) -> bool:
        """Whether a person allowed exactly this command line, with its environment."""
        self._look()
        return _launch(server) in self._pins.get(_LAUNCHES, {})

    def allow_start(self, server: McpServer) -> None:
        """Lets this command line be started from now on."""
        self._put(_LAUNCHES, {_launch(server): command_line(server)})

    def _put(self, section: str, entries: Mapping[str, str]) -> None:
        with self._locked():
            self._look()
            self._pins[section] = {**self._pins.get(section, {}), **entries}
            self._save()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps other processes from writing, so that no pin is lost between reading and writing."""
        if self._path is None:
            yield
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path.with_name(f"{self._path.name}.lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _look(self) -> None:
        """Reads the file again when another process has changed it."""
        if self._path is None:
            return
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return
        now = (stat.st_mtime_ns, stat.st_ino)
        if now != self._stamp:
            self._pins, self._stamp = _loaded(self._path), now

    def _save(self) -> None:
        if self._path is None:
            return
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


def _launch(server: McpServer) -> str:
    whole = [server.command, list(server.args), dict(server.env)]
    return hashlib.sha256(dumps(whole).encode()).hexdigest()


def _loaded(path: pathlib.Path) -> dict[str, dict[str, str]]:
    try:
        data = parse_json(path.read_text("ascii"))
        return {str(s): {str(t): str(h) for t, h in pins.items()} for s, pins in data.items()}
    except (ValueError, AttributeError) as error:
        # Starting afresh would approve whatever the servers show now.
        raise Conflict(
            f"the tool approvals in {path.name!r} are damaged: {str(error)[:100]}",
            hint="restore the file, or delete it to approve every server's tools anew",
        ) from None
