"""What tests of traces share: a lead with a tool and a sub-agent, its spans by name, and a collector."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent_support import call
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.base import Tool
from pentad.agent.tools.functions import tool
from pentad.testing.backends import ScriptedBackend
from pentad.tracing.spans import TraceSpan
from pentad.types import Usage
from team_support import agent, by_agent, delegated, team


@tool(effects="none")
def search(text: str) -> str:
    """Looks something up."""
    return f"found {text}"


TOOLS: tuple[Tool, ...] = (search,)
FIRST = Usage(prompt_tokens=40, completion_tokens=6, cached_tokens=16)
SCRIPT = by_agent(
    {
        "lead": [
            [call("search", "c1", text="a secret"), FIRST],
            [delegated("ann", "add it up", "c2")],
            ["the whole"],
        ],
        "ann": [["the sum"]],
    }
)
"""The lead searches, gives a task to ann, and answers: four model calls, two tools, one sub-run."""


def leading() -> AgentSpec:
    """The lead of the script, with ann alone."""
    return team({"ann": agent("ann")}, tools=("search",))


def script(calls: int = 8) -> ScriptedBackend:
    """A model that plays the script."""
    return ScriptedBackend([SCRIPT] * calls)


def named(spans: Iterable[TraceSpan], name: str) -> TraceSpan:
    """The only span of that name."""
    (found,) = [span for span in spans if span.name == name]
    return found


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A span as a collector has it."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    attributes: dict[str, Any]
    events: tuple[str, ...]
    error: str
    service: str


class Collector:
    """A collector of OTLP over HTTP on a free port: keeps what arrives.

    Attributes:
        spans: in the order of their arrival. headers: of each export. status: what it answers.
    """

    def __init__(self, status: int = 200) -> None:
        self.spans: list[Arrived] = []
        self.headers: list[dict[str, str]] = []
        self.status = status
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if collector.status == 200:
                    collector.headers.append({k.lower(): v for k, v in self.headers.items()})
                    collector.spans += _read(body) if self.path == "/v1/traces" else []
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def named(self, name: str) -> Arrived:
        """The only span of that name."""
        (found,) = {span.span_id: span for span in self.spans if span.name == name}.values()
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _read(body: bytes) -> Iterable[Arrived]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Arrived(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    attributes={each.key: _plain(each.value) for each in span.attributes},
                    events=tuple(event.name for event in span.events),
                    error=span.status.message,
                    service=service,
                )


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_plain(each) for each in found.values] if kind == "array_value" else found
