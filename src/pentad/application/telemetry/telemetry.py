"""Telemetry: all that exports traces, joined once from the settings; None of it exists where they are off."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pentad.agent.journal import Journal
from pentad.agent.run_places import Tracing
from pentad.application.telemetry.journal_tracer import JournalTracer
from pentad.application.telemetry.otlp_http import delivery
from pentad.application.telemetry.request_spans import RequestTracer
from pentad.application.telemetry.sender import Batching, SpanSender
from pentad.errors import InvalidRequest
from pentad.types import Clock

if TYPE_CHECKING:
    from pentad.application.config import TelemetrySettings

_LOG = logging.getLogger(__name__)


class Telemetry:
    """One process's export of traces.

    Args:
        tracing: what is recorded.
        sender: where ended spans go.
        clock: monotonic.
    """

    def __init__(self, tracing: Tracing, sender: SpanSender, *, clock: Clock) -> None:
        self.tracing, self.sender = tracing, sender
        self.requests = RequestTracer(tracing, sender, clock=clock)
        self._runs: JournalTracer | None = None

    def following(self, journal: Journal) -> AbstractContextManager[None]:
        """Traces the runs of a journal within the body."""
        self._runs = JournalTracer(journal, self.tracing, self.sender.send, self.sender.drop)
        return self._runs.following()

    def flush(self, within_s: float = 10.0) -> bool:
        """Sends all that has ended so far; whether that was done in time."""
        return (self._runs is None or self._runs.flush(within_s)) and self.sender.flush(within_s)

    def close(self) -> None:
        """Sends what is left, as far as the collector takes it in a moment."""
        self.sender.close()


def telemetry_of(
    settings: TelemetrySettings, *, clock: Clock, env: Mapping[str, str] | None = None
) -> Telemetry | None:
    """What the settings ask for; None where traces are off.

    Args:
        env: OpenTelemetry's variables, which count only where traces are on; None: the process's.

    Raises:
        MissingExtra: they are on, and the extra `telemetry` is not installed.
        InvalidRequest: one of OTEL_BSP_* is no number or out of its range.
    """
    env = os.environ if env is None else env
    if settings.traces == "none":
        return None
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        _LOG.warning("traces are on, but OTEL_SDK_DISABLED turns them off")
        return None
    deliver, stop, where = delivery(settings.otlp_endpoint, settings.otlp_headers, settings.service_name)
    batching = Batching(
        most_queued=_number(env, "OTEL_BSP_MAX_QUEUE_SIZE", 2048),
        batch=_number(env, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
        every_s=_number(env, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000,
    )
    sender = SpanSender(deliver, where=where, stop=stop, batching=batching)
    tracing = Tracing(fraction=settings.trace_fraction, content=settings.trace_content)
    return Telemetry(tracing, sender, clock=clock)


def _number(env: Mapping[str, str], name: str, usual: int) -> int:
    text = env.get(name, "").strip()
    try:
        return int(text) if text else usual
    except ValueError:
        raise InvalidRequest(f"{name} is {text!r}, no whole number", hint=f"change {name}") from None
