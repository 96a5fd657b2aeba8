"""A case: one client, what it is asked to do, what the model says to it, and what must come of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pentad.testing.backends import Turn
from pentad.types import Request, ToolCall


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of a case."""

    said: Any
    """The JSON that the program printed on its last line, or everything that it printed."""
    requests: Sequence[Request]
    """What reached the scripted model; empty with a real one."""
    files: Mapping[str, str]
    """What then lay in the folder where the program ran."""


@dataclass(frozen=True, kw_only=True)
class Install:
    """What one client is made of, in a folder of its own."""

    name: str
    """The folder, and the package whose version is reported."""
    pip: Sequence[str] = ()
    npm: Sequence[str] = ()
    version_of: str = ""
    """The package whose version is reported, if it is not `name`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table."""

    name: str
    install: Install
    did: str
    """What the client does here, for the table."""
    command: Sequence[str]
    """Program and arguments.

    Replaced are `{url}`, `{home}` (where the client is installed), `{folder}` (where it runs), `{own}` (its
    HOME), `{programs}` and `{port}` (a free one, for a server of its own).
    """
    check: Callable[[Seen], None]
    """Asserts what must have come of it."""
    turns: Sequence[Turn] = ()
    """What the scripted model says; the last turn is repeated."""
    model: str = ""
    """A model of the store to serve in place of the scripted one."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside PATH and a HOME of its own; replaced like `command`."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files when the program starts, under `work/` (where it runs) or `home/` (its HOME)."""
    origins: Sequence[str] = ()
    """Origins of pages that may call the gateway; `{port}` is replaced."""
    context_tokens: int = 200_000
    """Of the scripted model."""
    timeout_s: float = 180.0
    light: bool = False
    """Whether the client is among the development tools, so that CI runs the case."""


_NUMBERS = itertools.count(1)


def call(name: str, arguments: str) -> ToolCall:
    """A call of a client's tool, with an id that no other has: clients refuse one that comes again."""
    return ToolCall(id=f"call_{next(_NUMBERS)}", name=name, arguments=arguments)


def roles(request: Request) -> list[str]:
    """Who speaks in the prompt, in order."""
    return [message.role for message in request.messages or ()]


def tool_results(request: Request) -> list[str]:
    """What the client's tools answered, in order."""
    return [message.content for message in request.messages or () if message.role == "tool"]
