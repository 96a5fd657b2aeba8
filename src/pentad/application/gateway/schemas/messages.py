"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's format."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from pentad.application.gateway.schemas.common import (
    Fraction,
    Id,
    Name,
    NvExtensions,
    PentadOptions,
    Short,
    StopList,
    TopP,
    WireEnergy,
)


class DocumentSource(Struct, kw_only=True):
    """Where a document's text, or an image's data in base64 are; other kinds are refused by name."""

    type: str
    media_type: Short | None = None
    data: str | None = None
    content: str | Annotated[list[Block], Meta(max_length=4096)] | None = None
    # Of images and documents that are not here.
    url: str | None = None
    file_id: Short | None = None


class Block(Struct, kw_only=True):
    """A content block. Texts, images, documents, calls and results are served; others refused by name."""

    type: str
    text: str | None = None
    id: Id | None = None
    name: Name | None = None
    input: dict[str, Any] | None = None
    tool_use_id: Id | None = None
    content: str | Annotated[list[Block], Meta(max_length=4096)] | None = None
    is_error: bool | None = None
    source: str | DocumentSource | None = None
    """Of a document its text, of an image its data; of a search result where it was found."""
    title: str | None = None
    context: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    citations: Any = None
    cache_control: dict[str, Any] | None = None
    """Every prefix is kept for the next request anyway."""


class TurnMessage(Struct, kw_only=True):
    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Meta(max_length=4096)]


class MessagesTool(Struct, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: Short | None = None
    cache_control: dict[str, Any] | None = None


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
    # State that a server would keep. None is kept here, so these are refused.
    thread: dict[str, Any] | None = None
    container: Any = None
    mcp_servers: list[Any] | None = None
    compaction: dict[str, Any] | None = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    """A turn to answer, with our `pentad` object beside Anthropic's fields."""

    max_tokens: Annotated[int, Meta(ge=0, le=10_000_000)]
    """0 computes the prompt for the prefix cache and answers nothing."""
    stop_sequences: StopList | None = None
    stream: bool | None = None
    temperature: Fraction | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    metadata: dict[str, Any] | None = None
    service_tier: Short | None = None
    nvext: NvExtensions | None = None
    pentad: PentadOptions | None = None


class ModelInfo(Struct, kw_only=True):
    """One served model, for clients that send `anthropic-version`."""

    id: str
    display_name: str
    created_at: str
    """RFC 3339."""
    max_input_tokens: int | None
    max_tokens: int | None
    lifecycle: Literal["active"] = "active"
    type: Literal["model"] = "model"


class ModelPage(Struct, kw_only=True):
    data: list[ModelInfo]
    first_id: str | None
    last_id: str | None
    has_more: bool


class TokenCount(Struct, kw_only=True):
    input_tokens: int


class MessagesUsage(Struct, kw_only=True):
    """Tokens as Anthropic counts them: `input_tokens` are those not taken from the cache."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    notices: list[str] | UnsetType = UNSET
    """What was done otherwise than asked, in sentences."""
    energy: WireEnergy | UnsetType = UNSET


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
