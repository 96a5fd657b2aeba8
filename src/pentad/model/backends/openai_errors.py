"""Errors of a remote endpoint as ours. The key, and whatever holds it, never gets through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2

from pentad.errors import (
    BackendFailed,
    ContextLengthExceeded,
    InvalidRequest,
    Overloaded,
    PentadError,
    Unavailable,
)
from pentad.model.backends.openai_text import cleaned

if TYPE_CHECKING:
    from pentad.model.backends.endpoint import Endpoint

MAX_TEXT_CHARS = 300
MAX_RETRY_AFTER_S = 3600.0


class RefusedCall(Exception):
    """An answer with a status that is no success, of a wire without a client that has such errors."""

    def __init__(self, status_code: int, body: Any, response: httpx2.Response) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code
        self.message = f"status {status_code}"
        self.body = body
        self.response = response


def translated(error: Exception, endpoint: Endpoint) -> PentadError:
    """The error of ours that an exception of the client stands for."""
    if isinstance(error, PentadError):
        return error
    where = f"the endpoint at {host(endpoint)}"
    name = type(error).__name__
    if name == "APITimeoutError" or isinstance(error, httpx2.TimeoutException):
        return Unavailable(
            f"{where} gave no answer within {endpoint.timeout_s:g} s",
            hint="raise timeout_s or try again later",
        )
    if name == "APIConnectionError" or isinstance(error, httpx2.TransportError):
        return Unavailable(
            f"{where} cannot be reached",
            hint="check its `url` in `backends` of the settings file, and whether the server runs",
        )
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return _by_status(status, error, endpoint, where)
    said = redacted(getattr(error, "message", None) or name, endpoint)
    return BackendFailed(f"{where} failed while answering: {said}", hint="try again, or choose another model")


def _by_status(status: int, error: Any, endpoint: Endpoint, where: str) -> PentadError:
    said = redacted(_message(error), endpoint)
    if status in (401, 403):
        return BackendFailed(
            f"{where} refused our key ({status})", hint="check the variable that its `api_key_env` names"
        )
    if status == 404:
        return BackendFailed(
            f"{where} has no model {endpoint.model!r}: {said}",
            hint="check its `url` and `model` in `backends` of the settings file",
        )
    if status in (429, 503):
        kind = Overloaded if status == 429 else Unavailable
        return kind(
            f"{where} is overloaded: {said}", retry_after_s=_retry_after_s(error), hint="try again later"
        )
    if status in (400, 413, 422):
        too_long = getattr(error, "code", None) == "context_length_exceeded"
        refused = ContextLengthExceeded if too_long else InvalidRequest
        param = getattr(error, "param", None)
        return refused(
            f"{where} refused the request: {said}",
            hint="change the request as it says",
            param=param if isinstance(param, str) else None,
        )
    if 300 <= status < 400:
        return BackendFailed(
            f"{where} leads to another address ({status}), which prompts are not sent to",
            hint="set the backend's url to the final address",
        )
    return BackendFailed(f"{where} failed ({status}): {said}", hint="try again, or choose another model")


def host(endpoint: Endpoint) -> str:
    """Host and port, without user, password or path."""
    parts = urlsplit(endpoint.base_url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def redacted(text: object, endpoint: Endpoint) -> str:
    """One line, bounded, with the key struck out."""
    line = " ".join(cleaned(str(text)).split())
    if len(endpoint.api_key) >= 8:
        line = line.replace(endpoint.api_key, "[key]")
    return line[:MAX_TEXT_CHARS]


def _message(error: Any) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict) and isinstance(inner.get("message"), str):
            return str(inner["message"])
        if isinstance(inner, str):
            return inner
    return str(getattr(error, "message", error))


def _retry_after_s(error: Any) -> float:
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        wished_s = float(headers.get("retry-after", 1.0))
    except ValueError:
        return 1.0
    return min(wished_s, MAX_RETRY_AFTER_S) if wished_s >= 0 else 1.0
