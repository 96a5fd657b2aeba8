"""ToolPlaces: tools that bear only so many calls at once, over all runs of a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from pentad.agent.tools.base import Tool
from pentad.resource.arbitration.allocation import Allocation
from pentad.resource.arbitration.arbiter import Arbiter

WAIT: Final = "wait for tool"
"""The span of a call that had to wait."""


class ToolPlaces:
    """Gives calls of limited tools their places in the order of their asking. Used from one event loop.

    A call holds nothing else that is limited while it waits, and comes out of it when its run ends.

    Args:
        tenants: how many tenants there can be.
        share: of a tool's places, what one of several tenants may hold; a place at least.
    """

    def __init__(self, *, tenants: int = 1, share: float = 1.0) -> None:
        self._share = share if tenants > 1 else 1.0
        self._arbiter = Arbiter(Allocation({}))

    def taken(self, tool: Tool, tenant: str) -> bool:
        """Whether a call of the tool has to wait now."""
        name = _name(tool)
        return name in self._arbiter.allocation and not self._arbiter.allocation.free(name, tenant)

    @asynccontextmanager
    async def hold(self, tool: Tool, tenant: str) -> AsyncIterator[None]:
        """Waits for a place of the tool and holds it for the time of the block; none is needed of a tool
        without `at_once`."""
        if tool.at_once is None:
            yield
            return
        name = _name(tool)
        if name not in self._arbiter.allocation:
            quota = max(1, int(tool.at_once * self._share))
            self._arbiter.allocation.add(name, tool.at_once, quota)
        one = {name: 1}
        async with self._arbiter.enter(one, tenant=tenant) as grip, grip.hold(one):
            yield


def _name(tool: Tool) -> str:
    """Tools of one name that bear more or fewer calls are different ones."""
    return f"{tool.name} of {tool.at_once}"
