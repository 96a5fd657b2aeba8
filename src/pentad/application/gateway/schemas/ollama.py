"""Ollama's own API: what is read and what is answered. Source: github.com/ollama/ollama, docs/api.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from pentad.application.gateway.schemas.chat import ChatTool
from pentad.application.gateway.schemas.common import (
    Count,
    Fraction,
    Name,
    NvExtensions,
    Penalty,
    PentadOptions,
    RepetitionPenalty,
    Seed,
    Short,
    StopList,
    StopText,
    Temperature,
    TopP,
)
from pentad.application.gateway.schemas.embeddings import MAX_INPUTS

KeepAlive = float | Annotated[str, Meta(max_length=32)]
"""Seconds, or a time like `5m`; negative: for ever."""
Think = bool | Literal["low", "medium", "high"]


class OllamaOptions(Struct, kw_only=True):
    """How tokens are drawn. Others of Ollama's options are about its runner, and not read."""

    num_predict: Annotated[int, Meta(ge=-2, le=10_000_000)] | None = None
    """Most tokens of the answer; negative: as many as there is room for."""
    temperature: Temperature | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    top_p: TopP | None = None
    min_p: Fraction | None = None
    seed: Seed | None = None
    stop: StopText | StopList | None = None
    repeat_penalty: RepetitionPenalty | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    num_ctx: Count | None = None
    """Read for its size alone: the context is what the model was loaded with."""


class OllamaRequest(Struct, kw_only=True):
    """What the requests that generate share."""

    model: Name
    format: dict[str, Any] | Literal["", "json"] | None = None
    options: OllamaOptions | None = None
    stream: bool | None = None
    """Absent: true."""
    think: Think | None = None
    keep_alive: KeepAlive | None = None
    pentad: PentadOptions | None = None
    metadata: dict[str, Any] | None = None
    nvext: NvExtensions | None = None


class CalledFunction(Struct, kw_only=True):
    name: Name
    arguments: dict[str, Any] = {}


class Called(Struct, kw_only=True):
    function: CalledFunction


class OllamaMessage(Struct, kw_only=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = None
    images: Annotated[list[str], Meta(max_length=256)] | None = None
    """In base64."""
    tool_calls: Annotated[list[Called], Meta(max_length=256)] | None = None
    tool_name: Short | None = None
    """Whose result a message of role `tool` is."""
    tool_call_id: Short | None = None


class OllamaChatRequest(OllamaRequest, kw_only=True):
    messages: list[OllamaMessage] = []
    """None: the model is only loaded, or with `keep_alive` 0 unloaded."""
    tools: Annotated[list[ChatTool], Meta(max_length=1024)] | None = None


class OllamaGenerateRequest(OllamaRequest, kw_only=True):
    prompt: str = ""
    """Empty: the model is only loaded, or with `keep_alive` 0 unloaded."""
    system: str | None = None
    suffix: str | None = None
    images: Annotated[list[str], Meta(max_length=256)] | None = None
    raw: bool | None = None
    """Whether the prompt goes to the model as it is, without its template."""


class OllamaEmbedRequest(Struct, kw_only=True):
    model: Name
    input: str | Annotated[list[str], Meta(max_length=MAX_INPUTS)] = []
    prompt: str | None = None
    """Of the older route, for one text."""
    truncate: bool | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65536)] | None = None
    keep_alive: KeepAlive | None = None


class OllamaModelRequest(Struct, kw_only=True):
    """Names one model."""

    model: Name | None = None
    name: Name | None = None
    """Of older clients."""
    stream: bool | None = None


class AnswerFunction(Struct, kw_only=True):
    name: str
    arguments: dict[str, Any]


class AnswerCalled(Struct, kw_only=True):
    function: AnswerFunction


class OllamaAnswerMessage(Struct, kw_only=True):
    role: str = "assistant"
    content: str = ""
    thinking: str | UnsetType = UNSET
    tool_calls: list[AnswerCalled] | UnsetType = UNSET


class OllamaAnswer(Struct, kw_only=True):
    """One line of an answer. Durations are measured, in nanoseconds."""

    model: str
    created_at: str
    message: OllamaAnswerMessage | UnsetType = UNSET
    """Of a chat."""
    response: str | UnsetType = UNSET
    """Of a completion."""
    thinking: str | UnsetType = UNSET
    done: bool = False
    done_reason: str | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class OllamaEmbedAnswer(Struct, kw_only=True):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class OllamaVector(Struct, kw_only=True):
    """Of the older route."""

    embedding: list[float]


class Details(Struct, kw_only=True):
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str
    parent_model: str = ""


class Tag(Struct, kw_only=True):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class Tags(Struct, kw_only=True):
    models: list[Tag]


class Running(Tag, kw_only=True):
    expires_at: str
    size_vram: int
    context_length: int


class RunningModels(Struct, kw_only=True):
    models: list[Running]


class Shown(Struct, kw_only=True):
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str
    license: str | UnsetType = UNSET


class OllamaCopyRequest(Struct, kw_only=True):
    """A further name for a model."""

    source: Name
    destination: Name


class OllamaStatus(Struct, kw_only=True):
    """One line of a pull."""

    status: str
    digest: str | UnsetType = UNSET
    total: int | UnsetType = UNSET
    completed: int | UnsetType = UNSET


class OllamaVersion(Struct, kw_only=True):
    version: str
    """Of Ollama's API that is served: clients compare it."""
    pentad: str


class OllamaError(Struct, kw_only=True):
    error: str
