"""JournalTracer: spans of agent runs, told from what is written into the journal and by nothing else.

So a run's work knows nothing of them, and one that another process takes up goes on where it was: the records
of before are read again, and what ended shortly before the other process did is sent again, since it may not
have been sent. Such a span has the same ids, and collectors keep one of them.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pentad.agent.events import Record, RunEnded, RunStarted
from pentad.agent.journal import Journal
from pentad.agent.run_places import Tracing
from pentad.agent.run_spans import RunSpans
from pentad.errors import PentadError
from pentad.tracing.spans import TraceSpan

_LOG = logging.getLogger(__name__)
_MOST_RECORDS = 4096
"""Commits that wait to be looked at; that takes some 50 µs each."""
_MOST_RUNS = 1024
"""Runs that are followed at once; of further ones the journal is read again when they go on."""
AGAIN_S = 10.0
"""What ended so shortly before its process did is sent again."""


class JournalTracer:
    """Follows all runs that this process writes, in a thread of its own.

    Args:
        journal: of the runs.
        tracing: what is recorded.
        send: takes a span that has ended.
        missed: is told of how many records were not looked at.
    """

    def __init__(
        self,
        journal: Journal,
        tracing: Tracing,
        send: Callable[[TraceSpan], None],
        missed: Callable[[int], None],
    ) -> None:
        self._journal, self._tracing, self._send, self._missed = journal, tracing, send, missed
        self._runs: dict[str, RunSpans] = {}
        self._queue: queue.Queue[Sequence[Record] | threading.Event | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="telemetry-runs", daemon=True)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follows within the body; on leaving, all that was written has been looked at."""
        self._thread.start()
        try:
            with self._journal.watch(None, self._tell):
                yield
        finally:
            self._queue.put(None)
            self._thread.join(5.0)

    def flush(self, within_s: float) -> bool:
        """Looks at all that is written now; whether that was done in time."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(within_s)

    def _tell(self, records: Sequence[Record]) -> None:
        """In the journal's writer thread: never waits, never fails."""
        if self._queue.qsize() >= _MOST_RECORDS:
            self._missed(len(records))
            return
        self._queue.put(records)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                for record in item:
                    self._follow(record)
            except PentadError as error:  # erased meanwhile, or damaged
                _LOG.info("a run is not traced: %s", error)
                self._runs.pop(item[0].run_id, None)
            except Exception:
                _LOG.exception("a bug of ours: run %s is not traced", item[0].run_id)
                self._runs.pop(item[0].run_id, None)

    def _follow(self, record: Record) -> None:
        run = self._runs.get(record.run_id)
        if isinstance(record.event, RunStarted):
            run = RunSpans(self._tracing, record)
        elif run is None or record.sequence > run.sequence + 1:
            run = self._caught_up(record, run)
        elif record.sequence == run.sequence + 1:
            self._out(run.apply(record))
        self._runs.pop(record.run_id, None)  # the latest last
        if isinstance(record.event, RunEnded):
            return
        self._runs[record.run_id] = run
        if len(self._runs) > _MOST_RUNS:
            del self._runs[next(iter(self._runs))]

    def _caught_up(self, record: Record, known: RunSpans | None) -> RunSpans:
        """The run up to the record, from the journal: another process had it, or too much waited here."""
        records = [r for r in self._journal.read(record.run_id) if r.sequence <= record.sequence]
        run = RunSpans(self._tracing, records[0])
        before_s = records[-2].at_s if len(records) > 1 else 0.0
        for each in records[1:]:
            ended = run.apply(each)
            fresh = each.sequence > known.sequence if known else each.at_s >= before_s - AGAIN_S
            if fresh:
                self._out(ended)
        return run

    def _out(self, spans: Sequence[TraceSpan]) -> None:
        for span in spans:
            self._send(span)
