"""Errors as clients of each dialect expect them. Only PentadErrors show their text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import msgspec
from starlette.responses import Response

from pentad.errors import ContextLengthExceeded, InvalidRequest, Overloaded, PentadError

Dialect = Literal["openai", "anthropic", "ollama"]


class RequestTimeout(InvalidRequest):
    """The body did not arrive in time."""

    status = 408
    code = "request_timeout"


class MethodNotAllowed(InvalidRequest):
    """The path exists, with other methods."""

    status = 405
    code = "method_not_allowed"


class ThreadUnsupported(InvalidRequest):
    """No conversation is kept here; Anthropic's SDKs then send the whole of it, without `thread`."""

    code = "thread_unsupported_request"
    details: ClassVar = {"error_code": "thread_unsupported_request"}


class PreviousResponseNotFound(InvalidRequest):
    """The response to go on from is not kept, or no longer; clients then send the whole conversation."""

    code = "previous_response_not_found"


_OPENAI_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def openai_error(error: PentadError) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`."""
    fallback = "server_error" if error.status >= 500 else "invalid_request_error"
    kind = _OPENAI_TYPES.get(error.status, fallback)
    message = _worded(error, _openai_context)
    return {"error": {"message": message, "type": kind, "param": error.param, "code": error.code}}


def anthropic_error(error: PentadError, request_id: str) -> dict[str, Any]:
    """`{"type": "error", "error": {type, message}, "request_id"}`."""
    fallback = "api_error" if error.status >= 500 else "invalid_request_error"
    kind = _ANTHROPIC_TYPES.get(error.status, fallback)
    detail: dict[str, Any] = {"type": kind, "message": _worded(error, _anthropic_context)}
    if isinstance(error, ThreadUnsupported):
        detail["details"] = error.details
    return {"type": "error", "error": detail, "request_id": request_id}


def _worded(error: PentadError, context: Callable[[int, int, int], str]) -> str:
    """The error's text. Programs look for a vendor's sentence on the context: it comes first, ours behind."""
    if not isinstance(error, ContextLengthExceeded) or not (error.prompt_tokens and error.context_tokens):
        return str(error)
    return f"{context(error.prompt_tokens, error.answer_tokens, error.context_tokens)}. Here: {error}"


def _openai_context(prompt: int, answer: int, context: int) -> str:
    """The sentence by which LiteLLM and others know that the prompt must become shorter."""
    limit = f"This model's maximum context length is {context} tokens. However, "
    if not answer:
        return f"{limit}your messages resulted in {prompt} tokens"
    asked = f"you requested {prompt + answer} tokens ({prompt} in the messages, {answer} in the completion)"
    return limit + asked


def _anthropic_context(prompt: int, answer: int, context: int) -> str:
    """The sentences by which Claude Code asks for a shorter answer, or compacts the conversation."""
    if not answer:
        return f"prompt is too long: {prompt} tokens > {context} maximum"
    return f"input length and `max_tokens` exceed context limit: {prompt} + {answer} > {context}"


def error_body(error: PentadError, dialect: Dialect, request_id: str) -> bytes:
    """The JSON body of an error answer or event."""
    match dialect:
        case "openai":
            body = openai_error(error)
        case "anthropic":
            body = anthropic_error(error, request_id)
        case "ollama":
            body = {"error": str(error)}
    return msgspec.json.encode(body)


def error_response(
    error: PentadError, dialect: Dialect, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A whole error answer, with Retry-After where trying again helps."""
    extra = dict(headers or {})
    if isinstance(error, Overloaded):
        extra["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return Response(
        error_body(error, dialect, request_id),
        status_code=error.status,
        headers=extra,
        media_type="application/json",
    )


def internal_error(request_id: str) -> PentadError:
    """What a client learns of a bug of ours: nothing but where to look it up."""
    return PentadError(
        "the server failed to answer", hint=f"its log has the cause under request id {request_id}"
    )
