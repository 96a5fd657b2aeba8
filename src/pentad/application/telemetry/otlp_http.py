"""Delivery of spans as OTLP over HTTP, by OpenTelemetry's own SDK and exporter (extra `telemetry`).

The SDK's global state is left alone: no tracer provider is set, and nothing is patched.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pentad
from pentad.application.telemetry.sender import THREAD, Deliver
from pentad.errors import MissingExtra
from pentad.tracing.context import TraceContext
from pentad.tracing.spans import SCHEMA_URL, SCOPE, TraceSpan, nanoseconds

_PATH = "/v1/traces"
_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.common.http",
)


def check_installed() -> None:
    """Raises MissingExtra where the SDK or its exporter is not there."""
    for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise MissingExtra(
                "traces are exported by OpenTelemetry's SDK, which is not installed",
                hint="pip install 'pentad[telemetry]', or set --traces none",
            )


def delivery(
    endpoint: str | None, headers: Mapping[str, str], service: str | None
) -> tuple[Deliver, Callable[[], None], str]:
    """What sends a batch, what stops it, and where to.

    What is not given, OpenTelemetry's variables tell: OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS,
    _TIMEOUT, _COMPRESSION, _CERTIFICATE and their forms for traces, OTEL_SERVICE_NAME and
    OTEL_RESOURCE_ATTRIBUTES.

    Args:
        endpoint: base URL of the collector; None takes the variables', else http://localhost:4318.
        headers: sent with every export.
        service: `service.name`.

    Raises MissingExtra.
    """
    check_installed()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace.export import SpanExportResult

    url = None
    if endpoint is not None:
        url = endpoint.rstrip("/")
        url = url if url.endswith(_PATH) else url + _PATH
    exporter = OTLPSpanExporter(endpoint=url, headers=dict(headers) or None)
    where = url or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    where = where or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
    told = {SERVICE_VERSION: pentad.__version__}
    if service or not (os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in _resource_variable()):
        told[SERVICE_NAME] = service or "pentad"
    resource = Resource.create(told)
    heard = _Heard()
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(heard)

    def deliver(batch: Sequence[TraceSpan]) -> str | None:
        heard.last = ""
        result = exporter.export([_readable(span, resource) for span in batch])
        if result is SpanExportResult.SUCCESS:
            return None
        return heard.last or "the collector did not take them"

    def stop() -> None:
        exporter.shutdown()  # type: ignore[no-untyped-call]
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(heard)

    return deliver, stop, where


class _Heard(logging.Filter):
    """Takes the log lines of the exporter in our thread, one for each try, and keeps a delivery's first."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if threading.current_thread().name != THREAD:
            return True
        self.last = self.last or _short(record)
        return False


def _short(record: logging.LogRecord) -> str:
    """What the line is about: the error at the bottom of those that wrap it, where there is one."""
    errors = [each for each in record.args or () if isinstance(each, BaseException)]
    if not errors:
        return record.getMessage()[:300]
    error = errors[0]
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"[:300]


def _resource_variable() -> str:
    return os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _readable(span: TraceSpan, resource: Any) -> Any:
    """A span as the SDK's exporters take it."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode

    parent = None if span.parent_id is None else _context(span.place.at(span.parent_id))
    status = Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error)
    return ReadableSpan(
        name=span.name,
        context=_context(span.place),
        parent=parent,
        resource=resource,
        attributes=dict(span.attributes),
        events=[
            Event(name=each.name, attributes=dict(each.attributes), timestamp=nanoseconds(each.at_s))
            for each in span.events
        ],
        links=[Link(context=_context(link)) for link in span.links],
        kind=SpanKind[span.kind.upper()],
        status=status,
        start_time=nanoseconds(span.begin_s),
        end_time=nanoseconds(span.end_s),
        instrumentation_scope=InstrumentationScope(SCOPE, pentad.__version__, SCHEMA_URL),
    )


def _context(place: TraceContext) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(
        trace_id=int(place.trace_id, 16),
        span_id=int(place.span_id, 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if place.sampled else TraceFlags.DEFAULT),
    )
