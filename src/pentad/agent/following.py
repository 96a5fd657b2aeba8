"""Following a run: journaled events, live and historical alike, with the text between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from pentad.agent.events import ModelAnswered, Record, RunEnded, TextStreamed
from pentad.agent.journal import Journal

_BUFFER = 1024
"""Live records kept for a slow reader; beyond it live text is skipped, journaled events never are."""
_POLL_S = 0.5
"""How often to look for events that another process writes."""


class Hub:
    """Passes live-only records to the followers of each run, in this process."""

    def __init__(self) -> None:
        self._followers: dict[str, set[asyncio.Queue[Record | None]]] = {}

    def publish(self, record: Record) -> None:
        """Hands the record to all who follow its run now; never waits."""
        for queue in self._followers.get(record.run_id, ()):
            if queue.qsize() < _BUFFER:
                queue.put_nowait(record)

    async def follow(self, journal: Journal, run_id: str, after: int) -> AsyncGenerator[Record, None]:
        """Records after the number `after`, until the run has ended.

        Live text comes in the place where it was made; a reader who joins late or falls behind
        misses only text that ModelAnswered repeats in whole.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Record | None] = asyncio.Queue()
        self._followers.setdefault(run_id, set()).add(queue)
        answered = (0, 0)

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, None)

        try:
            with journal.watch(run_id, wake):
                queue.put_nowait(None)
                while True:
                    live = await _next(queue)
                    if live is not None:
                        if _place(live) > answered:
                            yield live
                        continue
                    for record in await asyncio.to_thread(journal.read, run_id, after):
                        after = record.sequence
                        if isinstance(record.event, ModelAnswered):
                            answered = _place(record)
                        yield record
                        if isinstance(record.event, RunEnded):
                            return
        finally:
            followers = self._followers[run_id]
            followers.discard(queue)
            if not followers:
                del self._followers[run_id]


async def _next(queue: asyncio.Queue[Record | None]) -> Record | None:
    try:
        return await asyncio.wait_for(queue.get(), _POLL_S)
    except TimeoutError:
        return None


def _place(record: Record) -> tuple[int, int]:
    event = record.event
    assert isinstance(event, TextStreamed | ModelAnswered)
    return (event.step, event.attempt)
