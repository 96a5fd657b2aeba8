"""Following a run: journaled events, live and historical alike, with the text between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from pentad.agent.events import Record, RunEnded
from pentad.agent.journal import Journal
from pentad.agent.stalls import Stalls

_BUFFER = 1024
"""Live records kept for a slow reader; beyond it live text is skipped, journaled events never are."""
_POLL_S = 0.5
"""How often to look for events that another process writes."""


class Hub:
    """Passes live-only records to the followers of each run, in this process."""

    def __init__(self, stalls: Stalls) -> None:
        self._stalls = stalls
        self._followers: dict[str, set[asyncio.Queue[Record]]] = {}

    def publish(self, record: Record) -> None:
        """Hands the record to all who follow its run now; never waits."""
        for queue in self._followers.get(record.run_id, ()):
            if queue.qsize() < _BUFFER:
                queue.put_nowait(record)

    async def follow(
        self, journal: Journal, run_id: str, after: int, *, patient: bool = False
    ) -> AsyncGenerator[Record, None]:
        """Records after the number `after`, until the run has ended.

        Raises what keeps a run that waits for the journal, unless `patient`.

        Live text comes in the place where it was made; a reader who joins late or falls behind
        misses only text that ModelAnswered repeats in whole.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Record] = asyncio.Queue()
        self._followers.setdefault(run_id, set()).add(queue)

        def committed(record: Record) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may have been closed meanwhile
                loop.call_soon_threadsafe(queue.put_nowait, record)

        try:
            with journal.watch(run_id, committed):
                fresh: Record | None = None
                while True:
                    if fresh is None or (not fresh.live and fresh.sequence > after + 1):
                        # At the start, after a pause, or where another process has written.
                        records = await asyncio.to_thread(journal.read, run_id, after)
                    else:
                        current = fresh.sequence >= after if fresh.live else fresh.sequence > after
                        records = [fresh] if current else []
                    for record in records:
                        after = record.sequence
                        yield record
                        if isinstance(record.event, RunEnded):
                            return
                    if not patient and (kept := self._stalls.why(run_id)) is not None:
                        raise kept
                    fresh = await _next(queue)
        finally:
            followers = self._followers[run_id]
            followers.discard(queue)
            if not followers:
                del self._followers[run_id]


async def _next(queue: asyncio.Queue[Record]) -> Record | None:
    try:
        # Not wait_for, which in Python 3.11 loses a cancellation that comes together with an item.
        async with asyncio.timeout(_POLL_S):
            return await queue.get()
    except TimeoutError:
        return None
