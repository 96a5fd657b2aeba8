"""Following a run: journaled events, live and historical alike, with the text between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from pentad.agent.events import Record, RunEnded
from pentad.agent.journal import Journal
from pentad.agent.model_events import TextStreamed
from pentad.agent.stalls import Stalls

_BUFFER = 1024
"""Live records kept for a slow reader; beyond it live text is skipped, journaled events never are."""
_POLL_S = 0.5
"""How often to look for events that another process writes."""
_PROMPT_FOLLOWERS = 4
"""Up to so many followers of a run get each piece of text at once."""
_PAUSE_S = 0.002
"""Between pieces of a run's text, for each of its followers where there are more: writing a piece to one
takes some 0.1 ms of the event loop, which serves everybody."""


class Hub:
    """Passes live-only records to the followers of each run, in this process and its event loop.

    Text for many followers is collected, so that a run's followers together take about a twentieth of
    the event loop, however many they are.
    """

    def __init__(self, stalls: Stalls) -> None:
        self._stalls = stalls
        self._followers: dict[str, set[asyncio.Queue[Record]]] = {}
        self._pending: dict[str, tuple[Record, asyncio.TimerHandle]] = {}

    def publish(self, record: Record) -> None:
        """Hands the record to all who follow its run now, or soon; never waits."""
        followers = self._followers.get(record.run_id)
        if not followers:
            return
        if len(followers) <= _PROMPT_FOLLOWERS:
            self._flush(record.run_id)
            self._hand_out(record)
            return
        pending = self._pending.pop(record.run_id, None)
        if pending is None:
            timer = asyncio.get_running_loop().call_later(
                _PAUSE_S * len(followers), self._flush, record.run_id
            )
        else:
            before, timer = pending
            joined = _joined(before, record)
            if joined is None:
                self._hand_out(before)
            else:
                record = joined
        self._pending[record.run_id] = record, timer

    def _flush(self, run_id: str) -> None:
        """Hands out the text that was collected for a run's followers."""
        pending = self._pending.pop(run_id, None)
        if pending is not None:
            record, timer = pending
            timer.cancel()
            self._hand_out(record)

    def _hand_out(self, record: Record) -> None:
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

        def arrived(records: Sequence[Record]) -> None:
            self._flush(run_id)  # text comes before the event that repeats it
            for record in records:
                queue.put_nowait(record)

        def committed(records: Sequence[Record]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may have been closed meanwhile
                loop.call_soon_threadsafe(arrived, records)

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
                self._flush(run_id)


async def _next(queue: asyncio.Queue[Record]) -> Record | None:
    try:
        # Not wait_for, which in Python 3.11 loses a cancellation that comes together with an item.
        async with asyncio.timeout(_POLL_S):
            return await queue.get()
    except TimeoutError:
        return None


def _joined(before: Record, record: Record) -> Record | None:
    """Both pieces of text as one; None where they are not of one answer."""
    first, second = before.event, record.event
    if not (isinstance(first, TextStreamed) and isinstance(second, TextStreamed)):
        return None
    text = first.text + second.text
    if before.sequence != record.sequence or replace(first, text=text) != replace(second, text=text):
        return None
    return replace(record, event=replace(second, text=text))
