"""The table of operations: every public route with what it reads and answers.

The OpenAPI document is made from it; a test holds it equal to the router.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from pentad.application.gateway.schemas.audio import Transcription
from pentad.application.gateway.schemas.chat import ChatAnswer, ChatRequest
from pentad.application.gateway.schemas.common import Card, CardList
from pentad.application.gateway.schemas.completions import (
    CompletionAnswer,
    CompletionRequest,
    DetokenizeAnswer,
    DetokenizeRequest,
    TokenizeAnswer,
    TokenizeRequest,
    TokenizerInfo,
)
from pentad.application.gateway.schemas.embeddings import EmbeddingAnswer, EmbeddingRequest
from pentad.application.gateway.schemas.files import FileDeleted, FileList, FileObject
from pentad.application.gateway.schemas.messages import (
    CountTokensRequest,
    MessagesAnswer,
    MessagesRequest,
    TokenCount,
)
from pentad.application.gateway.schemas.ollama import (
    OllamaAnswer,
    OllamaChatRequest,
    OllamaCopyRequest,
    OllamaEmbedAnswer,
    OllamaEmbedRequest,
    OllamaError,
    OllamaGenerateRequest,
    OllamaModelRequest,
    OllamaStatus,
    OllamaVector,
    OllamaVersion,
    RunningModels,
    Shown,
    Tags,
)
from pentad.application.gateway.schemas.operations import (
    AdapterLoad,
    AdapterUnload,
    EngineReport,
    ErrorBody,
    MessagesErrorBody,
    ModelChange,
    ModelChanged,
    ModelStates,
    Status,
    Version,
)
from pentad.application.gateway.schemas.rerank import RerankAnswer, RerankRequest
from pentad.application.gateway.schemas.responses import (
    InputTokens,
    ResponseDeleted,
    ResponseObject,
    ResponseRequest,
)
from pentad.application.gateway.schemas.runs import (
    AgentList,
    ApprovalRequest,
    ForkRequest,
    RunExplanation,
    RunList,
    RunObject,
    RunPrompts,
    RunRequest,
)

Query = tuple[tuple[str, dict[str, Any]], ...]
Form = Query
_AFTER: Query = (("after", {"type": "integer", "minimum": 0, "maximum": 2**53}),)
_FOLLOW: Query = (
    ("stream", {"type": "boolean"}),
    ("starting_after", {"type": "integer", "minimum": 0, "maximum": 2**53}),
)
_MODEL: Query = (("model", {"type": "string", "minLength": 1}),)
_LIST: Query = (
    ("limit", {"type": "integer", "minimum": 0, "maximum": 1000}),
    ("status", {"type": "string"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    summary: str
    body: type[Struct] | None = None
    answer: type[Struct] | None = None
    media: str = "application/json"
    """Of the plain answer."""
    status: int = 200
    streams: bool = False
    """Whether it can answer with a stream."""
    stream_media: str = "text/event-stream"
    query: Query = ()
    form: Form = ()
    """Fields of a form in the place of a body; `file` must be there."""
    refusal: type[Struct] = ErrorBody
    failure: type[Struct] = ErrorBody


def _get(path: str, summary: str, answer: type[Struct] | None, **more: Any) -> Operation:
    return Operation(method="get", path=path, summary=summary, answer=answer, **more)


def _post(
    path: str, summary: str, body: type[Struct] | None, answer: type[Struct] | None, **more: Any
) -> Operation:
    return Operation(method="post", path=path, summary=summary, body=body, answer=answer, **more)


_RESPONSE = "/v1/responses/{response_id}"
_RUN = "/v1/runs/{run_id}"
_FILE = "/v1/files/{file_id}"
_TEXT: dict[str, Any] = {"type": "string"}
_BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
_UPLOAD: Form = (("file", _BYTES), ("purpose", _TEXT))
_ENGLISH: Form = (
    ("file", _BYTES),
    ("model", _TEXT),
    ("prompt", _TEXT),
    ("response_format", {"enum": ["json", "text", "srt", "verbose_json", "vtt"]}),
    ("temperature", {"type": "number", "minimum": 0, "maximum": 1}),
    ("stream", {"type": "boolean"}),
    ("chunking_strategy", _TEXT),
)
_SOUND: Form = (
    *_ENGLISH,
    ("language", _TEXT),
    ("timestamp_granularities[]", {"type": "array", "items": {"enum": ["segment", "word"]}}),
)
_ANTHROPIC: dict[str, Any] = {"refusal": MessagesErrorBody, "failure": MessagesErrorBody}
_OLLAMA_PLAIN: dict[str, Any] = {"refusal": OllamaError, "failure": OllamaError}
_OLLAMA: dict[str, Any] = {**_OLLAMA_PLAIN, "streams": True, "stream_media": "application/x-ndjson"}

OPERATIONS: tuple[Operation, ...] = (
    _post("/v1/chat/completions", "Answer a chat", ChatRequest, ChatAnswer, streams=True),
    _post("/v1/completions", "Complete raw prompts", CompletionRequest, CompletionAnswer, streams=True),
    _post("/v1/responses", "Create a response", ResponseRequest, ResponseObject, streams=True),
    _post("/v1/responses/input_tokens", "Count a prompt", ResponseRequest, InputTokens),
    _get(_RESPONSE, "Read or follow a stored response", ResponseObject, streams=True, query=_FOLLOW),
    Operation(method="delete", path=_RESPONSE, summary="Forget a stored response", answer=ResponseDeleted),
    _post(f"{_RESPONSE}/cancel", "Cancel a background response", None, ResponseObject),
    _post("/v1/embeddings", "Turn texts into vectors", EmbeddingRequest, EmbeddingAnswer),
    _post("/v1/rerank", "Order documents for a query", RerankRequest, RerankAnswer),
    _post("/rerank", "As /v1/rerank", RerankRequest, RerankAnswer),
    _post(
        "/v1/audio/transcriptions", "Turn speech into text", None, Transcription, form=_SOUND, streams=True
    ),
    _post("/v1/audio/translations", "Speech as English", None, Transcription, form=_ENGLISH, streams=True),
    _post("/v1/files", "Upload a file", None, FileObject, form=_UPLOAD),
    _get("/v1/files", "List the caller's files", FileList),
    _get(_FILE, "One file", FileObject),
    Operation(method="delete", path=_FILE, summary="Forget a file", answer=FileDeleted),
    _get(f"{_FILE}/content", "A file's bytes", None, media="application/octet-stream"),
    _get("/v1/models", "List the served models", CardList),
    _get("/v1/models/{name}", "One served model", Card),
    _post("/v1/messages", "Answer a turn", MessagesRequest, MessagesAnswer, streams=True, **_ANTHROPIC),
    _post("/v1/messages/count_tokens", "Count a prompt", CountTokensRequest, TokenCount, **_ANTHROPIC),
    _get("/v1/agents", "List the agents that can be started by name", AgentList),
    _post("/v1/runs", "Start an agent run", RunRequest, RunObject, status=201),
    _get("/v1/runs", "List the caller's runs", RunList, query=_LIST),
    _get(_RUN, "One run", RunObject),
    _get(f"{_RUN}/events", "Follow a run", None, media="text/event-stream", streams=True, query=_AFTER),
    _get(f"{_RUN}/explain", "Where a run's time, tokens and choices went", RunExplanation),
    _get(f"{_RUN}/prompts", "What each model call of a run was asked, word for word", RunPrompts),
    _post(f"{_RUN}/cancel", "End a run", None, RunObject),
    _post(f"{_RUN}/resume", "Take up an interrupted run", None, RunObject, status=202),
    _post(f"{_RUN}/fork", "Start a run from a step of another", ForkRequest, RunObject, status=201),
    _post(f"{_RUN}/approvals/{{approval_id}}", "Answer a waiting run", ApprovalRequest, RunObject),
    _post("/api/chat", "Answer a chat", OllamaChatRequest, OllamaAnswer, **_OLLAMA),
    _post("/api/generate", "Answer a prompt", OllamaGenerateRequest, OllamaAnswer, **_OLLAMA),
    _post("/api/embed", "Turn texts into vectors", OllamaEmbedRequest, OllamaEmbedAnswer, **_OLLAMA_PLAIN),
    _post("/api/embeddings", "Turn a text into a vector", OllamaEmbedRequest, OllamaVector, **_OLLAMA_PLAIN),
    _get("/api/version", "The version of Ollama's API", OllamaVersion, **_OLLAMA_PLAIN),
    _get("/api/tags", "List the served models", Tags, **_OLLAMA_PLAIN),
    _get("/api/ps", "List the loaded models", RunningModels, **_OLLAMA_PLAIN),
    _post("/api/show", "One model in full", OllamaModelRequest, Shown, **_OLLAMA_PLAIN),
    _post("/api/pull", "Bring a model and serve it", OllamaModelRequest, OllamaStatus, **_OLLAMA),
    _post(
        "/api/copy",
        "Give a model one more name",
        OllamaCopyRequest,
        None,
        media="text/plain",
        **_OLLAMA_PLAIN,
    ),
    Operation(
        method="delete",
        path="/api/delete",
        summary="Remove a model",
        body=OllamaModelRequest,
        media="text/plain",
        **_OLLAMA_PLAIN,
    ),
    _get("/models", "What is loaded of the served models", ModelStates),
    _post("/models/load", "Load a model", ModelChange, ModelChanged),
    _post("/models/unload", "Unload a model", ModelChange, ModelChanged),
    _post(
        "/v1/load_lora_adapter", "Serve an adapter beside its model", AdapterLoad, None, media="text/plain"
    ),
    _post("/v1/unload_lora_adapter", "Serve an adapter no more", AdapterUnload, None, media="text/plain"),
    _post("/tokenize", "Token ids of a text", TokenizeRequest, TokenizeAnswer),
    _get("/tokenizer_info", "Vocabulary, end tokens and chat template", TokenizerInfo, query=_MODEL),
    _post("/detokenize", "Text of token ids", DetokenizeRequest, DetokenizeAnswer),
    _get("/livez", "Whether the process answers; needs no key", Status),
    _get("/ping", "As /livez, with a key", Status),
    _get("/readyz", "Whether new work is taken", Status, failure=Status),
    _get("/health", "Whether every model makes tokens", Status, failure=Status),
    _get("/metrics", "Metrics in Prometheus' format", None, media="text/plain"),
    _get("/v1/engine", "Served models: load, KV memory, latencies", EngineReport),
    _get("/version", "The server's version", Version),
    _get("/openapi.json", "This document", None),
)
