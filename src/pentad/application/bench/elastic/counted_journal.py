"""CountedJournal: a journal on a virtual event loop, whose writer's thread takes none of its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pentad.agent.journal import Journal
from pentad.resource.simulator.virtual_loop import VirtualLoop


class CountedJournal(Journal):
    """A journal whose writes take no virtual time."""

    def queue(self, *args: Any, **options: Any) -> Any:
        return _counted(super().queue(*args, **options))

    async def _execute(self, change: Callable[[Any], Any]) -> Any:
        return await _counted(asyncio.ensure_future(super()._execute(change)))


def _counted(work: asyncio.Future[Any]) -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    return loop.counted(work) if isinstance(loop, VirtualLoop) else work
