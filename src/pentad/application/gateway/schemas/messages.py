"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's format."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from pentad.application.gateway.schemas.common import (
    Fraction,
    Name,
    PentadOptions,
    Short,
    StopList,
    Tokens,
    TopP,
)


class Block(Struct, kw_only=True):
    """A content block. Text, tool_use and tool_result are served; images are refused by name."""

    type: str
    text: str | None = None
    id: Name | None = None
    name: Name | None = None
    input: dict[str, Any] | None = None
    tool_use_id: Name | None = None
    content: str | list[dict[str, Any]] | None = None
    is_error: bool | None = None


class TurnMessage(Struct, kw_only=True):
    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Meta(max_length=4096)]


class MessagesTool(Struct, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: Short | None = None


class MessagesToolChoice(Struct, kw_only=True):
    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct, kw_only=True):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None


class OutputJson(Struct, kw_only=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, kw_only=True):
    format: OutputJson | None = None
    effort: Short | None = None


class CountTokensRequest(Struct, kw_only=True):
    """A prompt to count."""

    messages: Annotated[list[TurnMessage], Meta(min_length=1, max_length=4096)]
    model: Name
    system: str | Annotated[list[Block], Meta(max_length=256)] | None = None
    tools: Annotated[list[MessagesTool], Meta(max_length=256)] | None = None
    tool_choice: MessagesToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    """A turn to answer, with our `pentad` object beside Anthropic's fields."""

    max_tokens: Tokens
    stop_sequences: StopList | None = None
    stream: bool | None = None
    temperature: Fraction | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Short | None = None
    pentad: PentadOptions | None = None


class TokenCount(Struct, kw_only=True):
    input_tokens: int


class MessagesUsage(Struct, kw_only=True):
    """Tokens as Anthropic counts them: `input_tokens` are those not taken from the cache."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class AnswerBlock(Struct, kw_only=True, omit_defaults=True):
    type: str
    text: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    input: dict[str, Any] | UnsetType = UNSET


class MessagesAnswer(Struct, kw_only=True):
    id: str
    model: str
    content: list[AnswerBlock]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessagesUsage
    pentad: dict[str, Any] | UnsetType = UNSET
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
