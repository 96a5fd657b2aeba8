"""What the toolset asks of a tool wrapper: the same tools, called in another way."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pentad.agent.ports import ModelPort
from pentad.agent.tools.base import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class WrapperServices:
    """What a wrapper is opened with."""

    models: ModelPort
    """For vectors of texts."""


class Wrapping(Protocol):
    """An opened wrapper: what it keeps is shared by all runs of a process whose agents chose the same.

    What it keeps of one tenant is never seen by another.
    """

    def wrap(self, tool: Tool) -> Tool:
        """The tool as it is called from now on, or the tool itself where it is left alone.

        Name, description, parameters and effects stay. A result that the tool itself did not give is a
        `Sourced`, which the journal has as such. Asked before each step; holds no run.
        """
        ...

    def close(self) -> None:
        """Lets go of what is kept; what was learned is written before."""
        ...


class ToolWrapper(Protocol):
    """Chooses how tools are called. Holds nothing itself."""

    @property
    def name(self) -> str: ...

    def open(self, services: WrapperServices) -> Wrapping:
        """Raises InvalidRequest for options that cannot be used here."""
        ...


def repeatable(tool: Tool, patterns: Sequence[str]) -> bool:
    """Whether the tool is named and its call may be left out or made twice: it has no effect."""
    named = any(fnmatch.fnmatchcase(tool.name, pattern) for pattern in patterns)
    return named and tool.effects == "none"


def canonical_call(tenant: str, tool: Tool, arguments: Mapping[str, Any]) -> str:
    """What is equal for equal calls of one tenant only."""
    return json.dumps([tenant, tool.name, arguments], sort_keys=True, ensure_ascii=False)
