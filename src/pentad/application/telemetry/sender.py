"""SpanSender: ended spans on their way to a collector, in a thread of its own. Nothing ever waits for it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pentad.ranges import in_range
from pentad.tracing.spans import TraceSpan

_LOG = logging.getLogger(__name__)
THREAD = "telemetry-sender"
Deliver = Callable[[Sequence[TraceSpan]], str | None]
"""Sends a batch and says why it did not arrive; None when it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How spans are gathered; the defaults are those of OpenTelemetry's batch processor."""

    most_queued: int = 2048
    """Spans that wait to be sent; further ones are dropped, and counted."""
    batch: int = 512
    """Spans sent together, at most."""
    every_s: float = 5.0
    """Longest wait of a span for others."""

    def __post_init__(self) -> None:
        in_range("OTEL_BSP_MAX_QUEUE_SIZE", self.most_queued, least=1)
        in_range("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", self.batch, least=1)
        in_range("OTEL_BSP_SCHEDULE_DELAY", self.every_s, above=0)


class SpanSender:
    """Takes spans from any thread and delivers them in batches.

    A collector that is away is told of once in the log, and once more when it is back; what it misses is
    dropped and counted.

    Args:
        deliver: sends a batch; may take long. stop: makes a delivery under way end soon.
        where: the collector, for messages.

    Attributes:
        sent, dropped: spans, since the start.
    """

    def __init__(
        self, deliver: Deliver, *, where: str, stop: Callable[[], None], batching: Batching | None = None
    ) -> None:
        self._deliver, self._stop = deliver, stop
        self._where = where
        self._batching = batching or Batching()
        self._queue: queue.Queue[TraceSpan | threading.Event | None] = queue.Queue()
        self._away = False
        self._closed = False
        self.sent = self.dropped = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
        self._thread.start()

    def send(self, span: TraceSpan) -> None:
        """Queues a span, or drops it where too many wait. Never waits itself."""
        if self._closed or self._queue.qsize() >= self._batching.most_queued:
            self.drop(1)
            return
        self._queue.put(span)

    def drop(self, count: int) -> None:
        """Counts spans that are not sent."""
        with self._lock:
            self.dropped += count

    def flush(self, within_s: float) -> bool:
        """Sends what is queued now; whether that was done in time."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(within_s)

    def close(self, within_s: float = 3.0) -> None:
        """Sends what is queued, as far as the time allows; the rest counts as dropped."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._thread.join(within_s)
        self._stop()
        self._thread.join(1.0)

    def _work(self) -> None:
        batch: list[TraceSpan] = []
        due_s = 0.0
        while True:
            wait_s = max(0.0, due_s - time.monotonic()) if batch else None
            try:
                item = self._queue.get(timeout=wait_s)
            except queue.Empty:
                self._out(batch)
                batch = []
                continue
            if isinstance(item, TraceSpan):
                due_s = due_s if batch else time.monotonic() + self._batching.every_s
                batch.append(item)
                if len(batch) < self._batching.batch:
                    continue
            self._out(batch)
            batch = []
            if item is None:
                return
            if isinstance(item, threading.Event):
                item.set()

    def _out(self, batch: Sequence[TraceSpan]) -> None:
        if not batch:
            return
        try:
            trouble = self._deliver(batch)
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
        if trouble is not None:
            self.drop(len(batch))
            if not self._away:
                _LOG.warning(
                    "traces do not arrive at %s (%s); work goes on, spans are dropped and counted in "
                    "pentad_telemetry_spans_total",
                    self._where,
                    trouble,
                )
        else:
            self.sent += len(batch)
            if self._away:
                _LOG.warning("traces arrive at %s again; %d spans were dropped", self._where, self.dropped)
        self._away = trouble is not None
