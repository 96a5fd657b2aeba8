"""Error bodies and the answers of probes."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class ErrorDetail(Struct, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Struct, kw_only=True):
    """Every error but those of /v1/messages."""

    error: ErrorDetail


class MessagesErrorDetail(Struct, kw_only=True):
    type: str
    message: str


class MessagesErrorBody(Struct, kw_only=True):
    """Errors of /v1/messages."""

    error: MessagesErrorDetail
    request_id: str
    type: Literal["error"] = "error"


class Status(Struct, kw_only=True):
    """What a probe answers."""

    status: str
    reason: str | UnsetType = UNSET


class Version(Struct, kw_only=True):
    version: str
