"""Spans as OTLP's JSON: what OpenTelemetry's collector takes from files, and `pentad simulate` replays.

Source: opentelemetry-proto, `trace.proto`, in OTLP's JSON: ids are hexadecimal, 64-bit integers are text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pentad.tracing.spans import SCHEMA_URL, SCOPE, Attribute, Attributes, TraceSpan, nanoseconds

_KINDS = {"internal": 1, "server": 2, "client": 3}
_ERROR = 2


def otlp_export(spans: Iterable[TraceSpan], *, service: str, version: str) -> dict[str, Any]:
    """One export of all the spans, as a JSON object.

    Args:
        service: `service.name` of the resource.
        version: of Pentad.
    """
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _listed({"service.name": service, "service.version": version})},
                "scopeSpans": [
                    {
                        "scope": {"name": SCOPE, "version": version},
                        "spans": [_span(span) for span in spans],
                        "schemaUrl": SCHEMA_URL,
                    }
                ],
            }
        ]
    }


def _span(span: TraceSpan) -> dict[str, Any]:
    written: dict[str, Any] = {
        "traceId": span.place.trace_id,
        "spanId": span.place.span_id,
        "name": span.name,
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(nanoseconds(span.begin_s)),
        "endTimeUnixNano": str(nanoseconds(span.end_s)),
        "attributes": _listed(span.attributes),
        "status": {} if span.error is None else {"code": _ERROR, "message": span.error},
    }
    if span.parent_id is not None:
        written["parentSpanId"] = span.parent_id
    if span.events:
        written["events"] = [
            {
                "timeUnixNano": str(nanoseconds(event.at_s)),
                "name": event.name,
                "attributes": _listed(event.attributes),
            }
            for event in span.events
        ]
    if span.links:
        written["links"] = [{"traceId": link.trace_id, "spanId": link.span_id} for link in span.links]
    return written


def _listed(attributes: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Attribute) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, tuple):
        return {"arrayValue": {"values": [_value(each) for each in value]}}
    return {"stringValue": value}
