"""Plain: tools are called as they are."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.agent.tools.base import Tool
from pentad.agent.tools.wrapping.base import WrapperServices


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Leaves every tool as it is.

    Cost: none.
    """

    name = "plain"

    def open(self, services: WrapperServices) -> _Nothing:  # noqa: ARG002
        """Keeps nothing."""
        return _Nothing()


class _Nothing:
    def wrap(self, tool: Tool) -> Tool:
        return tool

    def close(self) -> None: ...
