"""Runs that wait until the journal can be written again, and go on by themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pentad.agent.journal_store.base import JournalUnavailable
from pentad.errors import PentadError

_LOG = logging.getLogger(__name__)
_LEAST_S, _MOST_S = 0.1, 2.0
T = TypeVar("T")


class Stalls:
    """Which runs of this process wait for the journal, and why."""

    def __init__(self) -> None:
        self._waiting: dict[str, PentadError] = {}
        self._lost: dict[str, PentadError] = {}

    def why(self, run_id: str) -> PentadError | None:
        """What keeps the run; None when nothing does."""
        return self._waiting.get(run_id) or self._lost.get(run_id)

    async def insist(self, run_id: str, write: Callable[[], Awaitable[T]]) -> T:
        """What `write` gives once it succeeds: a full disk or an I/O error is waited out.

        Raises what `write` does for any other reason, also that the journal is closed.
        """
        wait_s, told = _LEAST_S, False
        try:
            while True:
                try:
                    return await write()
                except JournalUnavailable as error:
                    if not error.passing:
                        raise
                    if not told:
                        _LOG.error("run %s waits for the journal: %s", run_id, error)
                    told = True
                    self._waiting[run_id] = error
                await asyncio.sleep(wait_s)
                wait_s = min(_MOST_S, 2 * wait_s)
        finally:
            if told and self._waiting.pop(run_id, None) is not None:
                _LOG.warning("run %s waits no longer", run_id)

    @property
    def lost(self) -> list[str]:
        """The runs that were given up though the journal may answer again."""
        kept = self._lost.items()
        return [i for i, error in kept if isinstance(error, JournalUnavailable) and error.passing]

    def give_up(self, run_id: str, error: PentadError) -> None:
        """Notes that nobody works on the run any more, until it is resumed."""
        self._lost[run_id] = error

    def begin(self, run_id: str) -> None:
        """Notes that somebody works on the run."""
        self._lost.pop(run_id, None)
