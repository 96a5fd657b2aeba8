"""What code tools ask of a sandbox: one snippet of foreign code run, with nothing of ours in its reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from pentad.agent.tools.base import Truncated
from pentad.errors import Incompatible
from pentad.ranges import in_range
from pentad.registry import known, load

Language = Literal["python", "shell"]
WORK = "/work"
"""The working folder, as the code sees it."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """One piece of foreign code, and what it may reach."""

    language: Language
    text: str
    key: str
    """The call's idempotency key; the code sees it as PENTAD_TOOL_KEY."""
    folder: str = ""
    """A folder of ours that is its working folder, read and written; empty gives it an empty one of its own,
    which is gone afterwards."""
    network: bool = False
    """Whether it has our network."""
    output_bytes: int = 16_384
    """Of each of its two outputs, what is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What came of a snippet that ended by itself or at a limit."""

    output: Truncated
    errors: Truncated
    code: int
    """As a shell tells it: 0 for success, 128 and the signal's number for a death by signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard bounds of a snippet. Its time is the tool's: who runs it stops waiting, and it is killed."""

    memory_bytes: int = 512 * MIB
    """Of each process; of all together too, where the machine lets us make a cgroup."""
    processes: int = 32
    """Processes and threads at once."""
    cpu_s: int = 20
    """Processor time of each process."""
    disk_bytes: int = 64 * MIB
    """Of the working folder, of /tmp and of each file."""
    open_files: int = 256
    """Of each process."""

    def __post_init__(self) -> None:
        in_range("memory_bytes", self.memory_bytes, least=64 * MIB)
        in_range("processes", self.processes, least=1)
        in_range("cpu_s", self.cpu_s, least=1)
        in_range("disk_bytes", self.disk_bytes, least=MIB)
        in_range("open_files", self.open_files, least=16)


class Sandbox(Protocol):
    """Runs snippets. Holds nothing of them: each has a world of its own."""

    languages: ClassVar[frozenset[Language]]
    reaches: ClassVar[frozenset[Literal["folder", "network"]]]
    """What it can give a snippet besides a processor."""

    @property
    def name(self) -> str: ...

    async def missing(self) -> str:
        """Why it cannot run anything on this machine, and what to do about it; empty when it can.

        Found out once per process.
        """
        ...

    async def run(self, snippet: Snippet) -> Finished:
        """What came of the snippet. When the task is cancelled, everything that it started is killed.

        Raises ToolFailed when it could not be begun.
        """
        ...


def check(sandbox: Sandbox, snippet: Snippet) -> None:
    """Raises Incompatible for a snippet that the sandbox cannot run at all, with those that can."""
    wanted: list[tuple[bool, str]] = [
        (snippet.language in sandbox.languages, f"runs no {snippet.language}"),
        (not snippet.folder or "folder" in sandbox.reaches, "gives no folder"),
        (not snippet.network or "network" in sandbox.reaches, "gives no network"),
    ]
    for possible, problem in wanted:
        if not possible:
            able = [name for name in known("sandbox") if _can(load("sandbox", name), snippet)]
            raise Incompatible(
                f"sandbox {sandbox.name!r} {problem}",
                hint=f"those that do: {', '.join(able)}",
                param="sandbox",
            )


def _can(sandbox: type[Sandbox], snippet: Snippet) -> bool:
    asked = {"folder"} if snippet.folder else set()
    asked |= {"network"} if snippet.network else set()
    return snippet.language in sandbox.languages and asked <= sandbox.reaches
