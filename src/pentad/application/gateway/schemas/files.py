"""/v1/files: what an upload is answered with. Clients of both dialects find the fields that they know."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class FileObject(Struct, kw_only=True):
    id: str
    filename: str
    created_at: int | str
    """Unix time; for clients that send `anthropic-version`, RFC 3339."""
    bytes: int
    size_bytes: int
    """The same under Anthropic's name."""
    mime_type: str
    purpose: str
    object: Literal["file"] = "file"
    type: Literal["file"] = "file"
    status: Literal["processed"] = "processed"
    downloadable: bool = True


class FileList(Struct, kw_only=True):
    data: list[FileObject]
    first_id: str | None = None
    last_id: str | None = None
    object: Literal["list"] = "list"
    has_more: bool = False


class FileDeleted(Struct, kw_only=True):
    id: str
    object: Literal["file"] = "file"
    type: Literal["file_deleted"] = "file_deleted"
    deleted: bool = True
