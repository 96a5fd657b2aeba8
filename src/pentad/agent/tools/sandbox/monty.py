"""Monty: small Python snippets in an interpreter that can do nothing but compute."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pentad.agent.tools.base import Truncated
from pentad.agent.tools.sandbox.base import MIB, Finished, Language, Snippet
from pentad.ranges import in_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Monty:
    """Runs small Python snippets in Monty, an interpreter without files, network, processes or packages.

    It knows a part of the language and of the standard library, and works on any machine, without
    namespaces or root (needs the extra `monty`). Each snippet has a session of its own.

    Source: pydantic-monty. Cost: a few milliseconds a call, a worker process while it runs.
    """

    memory_bytes: int = 128 * MIB
    """Of the interpreter's heap."""
    seconds: float = 10.0
    """Of one snippet's work; the tool's timeout holds as well."""

    name: ClassVar[str] = "monty"
    languages: ClassVar[frozenset[Language]] = frozenset({"python"})
    reaches: ClassVar[frozenset[Literal["folder", "network"]]] = frozenset()

    def __post_init__(self) -> None:
        in_range("memory_bytes", self.memory_bytes, least=MIB)
        in_range("seconds", self.seconds, above=0)

    async def missing(self) -> str:
        """Whether the extra is not installed."""
        there = importlib.util.find_spec("pydantic_monty") is not None
        return "" if there else "pydantic-monty is not installed; pip install 'pentad[monty]'"

    async def run(self, snippet: Snippet) -> Finished:
        """What the snippet printed, or the value of its last expression where it printed nothing."""
        import pydantic_monty as monty

        printed = {"stdout": _Kept(snippet.output_bytes), "stderr": _Kept(snippet.output_bytes)}
        limits: Any = {"max_memory": self.memory_bytes, "max_feed_duration_secs": self.seconds}
        code, value = 0, None
        async with (
            monty.AsyncMonty(max_processes=1) as pool,
            pool.checkout(limits=limits, script_name="code") as session,
        ):
            try:
                value = await session.feed_run(
                    snippet.text, print_callback=lambda stream, text: printed[stream].add(text)
                )
            except monty.MontyError as error:
                code = 1
                printed["stderr"].add(str(error))
        if not code and not printed["stdout"].total_bytes and value is not None:
            printed["stdout"].add(repr(value))
        return Finished(output=printed["stdout"].whole(), errors=printed["stderr"].whole(), code=code)


class _Kept:
    """The beginning of an output, and how long all of it was."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._data = bytearray()
        self.total_bytes = 0

    def add(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        self._data += data[: max(0, self._most + 4 - len(self._data))]
        self.total_bytes += len(data)

    def whole(self) -> Truncated:
        return Truncated(data=bytes(self._data), total_bytes=self.total_bytes)
