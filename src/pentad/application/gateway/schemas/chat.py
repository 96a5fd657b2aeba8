"""POST /v1/chat/completions: what is read and what the unstreamed answer looks like."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from pentad.application.gateway.schemas.common import (
    Choices,
    Count,
    Fraction,
    Id,
    LogitBias,
    Name,
    NvExtensions,
    Penalty,
    PentadOptions,
    Priority,
    RepetitionPenalty,
    Seed,
    Short,
    StopList,
    StopText,
    StreamOptions,
    StructuredOutputs,
    Temperature,
    TokenId,
    Tokens,
    TopP,
    WireUsage,
)


class ImageUrl(Struct, kw_only=True):
    url: str
    """`data:image/png;base64,...`"""
    detail: Short | None = None


class AudioData(Struct, kw_only=True):
    data: str
    """In base64."""
    format: Short
    """`wav` or `mp3`."""


class FileData(Struct, kw_only=True):
    file_data: str | None = None
    """A `data:` URL, or base64."""
    filename: Short | None = None
    file_id: Short | None = None


class ContentPart(Struct, kw_only=True):
    """A piece of a message: text, an image, a sound, a file. Other kinds are refused by name."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None
    """Of `image_url`, an object; of the responses API's `input_image`, a string."""
    detail: Short | None = None
    input_audio: AudioData | None = None
    file: FileData | None = None
    # Of the responses API's `input_file` and `input_image`.
    file_data: str | None = None
    filename: Short | None = None
    file_url: str | None = None
    file_id: Short | None = None
    # Sent back as we wrote them; they say nothing about the text.
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class FunctionCall(Struct, kw_only=True):
    name: Name
    arguments: str = "{}"


class MessageToolCall(Struct, kw_only=True):
    id: Id
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(Struct, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: Short | None = None
    tool_calls: Annotated[list[MessageToolCall], Meta(max_length=256)] | None = None
    tool_call_id: Id | None = None
    function_call: FunctionCall | None = None
    """The call of a client that sends `functions`; role `function` answers it."""
    refusal: str | None = None
    reasoning_content: str | None = None
    """What the assistant thought, as we sent it; `reasoning` is the same under its newer name."""
    reasoning: str | None = None
    audio: dict[str, Any] | None = None
    """Names an answer that the server would have kept; refused."""


class FunctionSpec(Struct, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChatTool(Struct, kw_only=True):
    function: FunctionSpec
    type: Literal["function"] = "function"


class NamedFunction(Struct, kw_only=True):
    name: Name


class AllowedTool(Struct, kw_only=True):
    function: NamedFunction
    type: Literal["function"] = "function"


class AllowedTools(Struct, kw_only=True):
    """Some of the tools sent, of which one may or must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Meta(min_length=1, max_length=256)]


class ObjectToolChoice(Struct, kw_only=True):
    """One function to call, or the tools that are allowed."""

    type: Literal["function", "allowed_tools"] = "function"
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchemaFormat(Struct, kw_only=True):
    name: Short
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, kw_only=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema: dict[str, Any] | None = None
    """The schema of a `json_object`, as llama.cpp's and Together's clients send it."""


class Prediction(Struct, kw_only=True):
    """Text that the answer may repeat in parts. Never changes the answer, only its speed."""

    content: str | list[ContentPart]
    type: Literal["content"] = "content"


class ReasoningWish(Struct, kw_only=True):
    """How the model shall think, as OpenRouter's clients send it."""

    effort: Short | None = None
    max_tokens: Tokens | None = None
    exclude: bool | None = None
    enabled: bool | None = None


class ChatRequest(Struct, kw_only=True):
    """A chat completion, with vLLM's extras and our `pentad` object."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=4096)]
    model: Name | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    n: Choices | None = None
    stop: StopText | StopList | None = None
    seed: Seed | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[ChatTool], Meta(max_length=256)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ObjectToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionSpec], Meta(max_length=256)] | None = None
    """The predecessor of `tools`; answered with `function_call`."""
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Short | None = None
    reasoning: ReasoningWish | None = None
    thinking_token_budget: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    """Tokens of reasoning, after which its end is forced."""
    include_reasoning: bool | None = None
    """False leaves the reasoning out of the answer."""
    user: Short | None = None
    safety_identifier: Short | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: Short | None = None
    prompt_cache_key: Short | None = None
    prediction: Prediction | None = None
    # vLLM's extras
    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Fraction | None = None
    repetition_penalty: RepetitionPenalty | None = None
    min_tokens: Annotated[Count, Meta(le=10_000_000)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=256)] | None = None
    ignore_eos: bool | None = None
    priority: Priority | None = None
    cache_salt: Short | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    """Whether the answer continues a last message of the assistant. It does unless this is false."""
    add_generation_prompt: bool | None = None
    """True begins a new turn behind a last message of the assistant."""
    structured_outputs: StructuredOutputs | None = None
    nvext: NvExtensions | None = None
    pentad: PentadOptions | None = None


class AnswerCall(Struct, kw_only=True):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class AnswerMessage(Struct, kw_only=True):
    content: str | None
    tool_calls: list[AnswerCall] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    refusal: None = None
    role: Literal["assistant"] = "assistant"


class TopLogprob(Struct, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(Struct, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Struct, kw_only=True):
    content: list[ContentLogprob]
    refusal: None = None


class AnswerChoice(Struct, kw_only=True):
    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: ChoiceLogprobs | None
    stop_reason: str | UnsetType = UNSET
    """vLLM's extra: the stop string that ended the answer."""


class ChatAnswer(Struct, kw_only=True):
    id: str
    created: int
    model: str
    choices: list[AnswerChoice]
    usage: WireUsage
    pentad: dict[str, Any] | UnsetType = UNSET
    object: Literal["chat.completion"] = "chat.completion"
