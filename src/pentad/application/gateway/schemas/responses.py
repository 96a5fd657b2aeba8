"""POST /v1/responses: what is read, and the response object."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from pentad.application.gateway.schemas.chat import ContentPart
from pentad.application.gateway.schemas.common import (
    Id,
    Name,
    NvExtensions,
    PentadOptions,
    Short,
    Temperature,
    Tokens,
    TopP,
    WireEnergy,
)


class InputItem(Struct, kw_only=True):
    """One item of the input: a message, a function call, its output, reasoning, or the name of one."""

    type: Short | None = None
    """Absent: a message if there is a role, else a reference."""
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[ContentPart] | None = None
    call_id: Id | None = None
    name: Name | None = None
    namespace: Short | None = None
    arguments: str | None = None
    output: str | list[ContentPart] | None = None
    id: Id | None = None
    """Of a stored item that a reference stands for; of other items what we once called them."""
    # Sent back as we wrote them.
    status: Short | None = None
    summary: list[Any] | None = None
    encrypted_content: str | None = None


class ResponseTool(Struct, kw_only=True):
    """A tool. Functions are served; hosted tools are left out, which x-pentad-ignored tells."""

    type: Short
    name: Short | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=256)] | None = None
    """The functions of a `namespace`."""


class ResponseToolChoice(Struct, kw_only=True):
    type: Short
    name: Name | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=256)] | None = None
    """Of `allowed_tools`: which of the tools sent may be called."""


class TextFormat(Struct, kw_only=True):
    type: Literal["text", "json_object", "json_schema"]
    name: Short | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(Struct, kw_only=True):
    format: TextFormat | None = None
    verbosity: Short | None = None


class Reasoning(Struct, kw_only=True):
    effort: Short | None = None
    summary: Short | None = None


class ResponseRequest(Struct, kw_only=True):
    """A response to create, possibly after a stored one."""

    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=4096)]
    model: Name | None = None
    instructions: str | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=256)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: Id | None = None
    conversation: Any = None
    """A conversation that a server would keep; refused."""
    prompt: dict[str, Any] | None = None
    """A prompt that a server would keep; refused."""
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None
    max_output_tokens: Tokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: Annotated[list[Short], Meta(max_length=32)] | None = None
    metadata: Annotated[dict[str, Short], Meta(max_length=64)] | None = None
    user: Short | None = None
    safety_identifier: Short | None = None
    service_tier: Short | None = None
    prompt_cache_key: Short | None = None
    stream_options: dict[str, Any] | None = None
    nvext: NvExtensions | None = None
    pentad: PentadOptions | None = None


class InputTokens(Struct, kw_only=True):
    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class InputDetails(Struct, kw_only=True):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct, kw_only=True):
    reasoning_tokens: int


class ResponseUsage(Struct, kw_only=True):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputDetails
    output_tokens_details: OutputDetails
    notices: list[str] | UnsetType = UNSET
    """What was done otherwise than asked, in sentences."""
    energy: WireEnergy | UnsetType = UNSET


class ResponseFailure(Struct, kw_only=True):
    code: str
    message: str


class IncompleteDetails(Struct, kw_only=True):
    reason: str


class ResponseObject(Struct, kw_only=True):
    """A response, in progress or done."""

    id: str
    created_at: int
    model: str
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    output: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    temperature: float
    top_p: float
    text: dict[str, Any]
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    reasoning: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    usage: ResponseUsage | None = None
    store: bool = True
    background: bool = False
    truncation: Literal["disabled"] = "disabled"
    """Nothing is ever cut silently, so this is the only mode."""
    pentad: dict[str, Any] | UnsetType = UNSET
    object: Literal["response"] = "response"


class ResponseDeleted(Struct, kw_only=True):
    id: str
    deleted: bool = True
    object: Literal["response"] = "response"
