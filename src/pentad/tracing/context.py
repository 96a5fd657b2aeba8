"""TraceContext: where a piece of work stands in a distributed trace, told to others as W3C Trace Context.

Identities are derived from names that a journal keeps, and not drawn: so a run that another process takes up
goes on in the same trace, and a span that is sent twice is the same span.

Source: W3C Trace Context, level 2, section 3.2 (`traceparent`). `tracestate` is not passed on.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, replace
from hashlib import blake2b

TRACEPARENT = "traceparent"
"""The header, and the key in the `_meta` of MCP."""
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """A span's place: its trace, itself, and whether the trace is recorded."""

    trace_id: str
    """32 hexadecimal digits, not all 0."""
    span_id: str
    """16 hexadecimal digits, not all 0."""
    sampled: bool = True

    @classmethod
    def parse(cls, text: str | None) -> TraceContext | None:
        """The place that a `traceparent` tells; None for one that is none, which is to be ignored."""
        found = _FORM.fullmatch((text or "").strip())
        if found is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
            return None
        return cls(trace_id=trace_id, span_id=span_id, sampled=bool(int(flags, 16) & _SAMPLED))

    @classmethod
    def drawn(cls) -> TraceContext:
        """A place in a trace of its own."""
        return cls(trace_id=secrets.token_hex(16), span_id=secrets.token_hex(8))

    def header(self) -> str:
        """The place as a `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    def at(self, span_id: str) -> TraceContext:
        """The place of another span of the same trace."""
        return replace(self, span_id=span_id)


def trace_id_of(name: str) -> str:
    """The id of the trace that belongs to a name; equal names have equal ids."""
    return blake2b(name.encode(), digest_size=16, person=b"pentad-trace").hexdigest()


def span_id_of(name: str) -> str:
    """The id of the span that belongs to a name, which is unique in its trace."""
    return blake2b(name.encode(), digest_size=8, person=b"pentad-span").hexdigest()


CURRENT: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)
"""Whose work is under way. Never set where no traces are exported: then nothing is told to anybody."""


def outgoing() -> dict[str, str]:
    """What a call to another process says of its place: a `traceparent`, or nothing."""
    current = CURRENT.get()
    return {} if current is None else {TRACEPARENT: current.header()}
