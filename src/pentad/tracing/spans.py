"""TraceSpan: one operation of a trace, with names and attributes of OpenTelemetry's GenAI conventions.

Source: the GenAI semantic conventions of OpenTelemetry, version 1.41, still in development. A test holds the
names equal to those of the package opentelemetry-semantic-conventions. What they lack is under `pentad.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pentad.tracing.context import TraceContext

Attribute = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, Attribute]
SpanKind = Literal["internal", "server", "client"]

SCOPE: Final = "pentad"
"""The instrumentation scope, and the provider of models that are served here."""
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
CONVERSATION: Final = "gen_ai.conversation.id"
AGENT_ID: Final = "gen_ai.agent.id"
AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_DESCRIPTION: Final = "gen_ai.agent.description"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_CHOICES: Final = "gen_ai.request.choice.count"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK_S: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
# Content, only where it is asked for.
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
ERROR_TYPE: Final = "error.type"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEvent:
    """Something that happened at an instant within a span."""

    name: str
    at_s: float
    """Wall clock, seconds since 1970."""
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSpan:
    """One operation that has ended."""

    place: TraceContext
    parent_id: str | None
    """Span id of the operation that it is part of; None for the first of its trace."""
    name: str
    kind: SpanKind
    begin_s: float
    """Wall clock, seconds since 1970."""
    end_s: float
    attributes: Attributes
    events: tuple[SpanEvent, ...] = ()
    links: tuple[TraceContext, ...] = ()
    """Spans that it comes of without being part of them."""
    error: str | None = None
    """Why it failed."""


def nanoseconds(at_s: float) -> int:
    """An instant as OTLP has it."""
    return round(at_s * 1e9)
