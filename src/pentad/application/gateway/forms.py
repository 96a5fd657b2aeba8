"""Forms with one file (`multipart/form-data`), read within the limits of a body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request as HttpRequest

from pentad.application.gateway.body import read_body
from pentad.application.gateway.settings import GatewaySettings
from pentad.errors import InvalidRequest
from pentad.model.workers import in_thread

MAX_FIELDS: Final = 32
MAX_FIELD_BYTES: Final = 64 * 2**10
"""Of one field that is no file."""
MAX_NAME: Final = 200
"""Characters of a file's name that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One file and the fields beside it."""

    name: str
    """Of the file, as its sender calls it; never a path here."""
    media_type: str
    """As its sender says; empty where nothing is said."""
    data: bytes
    fields: tuple[tuple[str, str], ...]
    """Names and values, in order; names may repeat."""

    def field(self, name: str, default: str = "") -> str:
        """The last value of that name."""
        return dict(self.fields).get(name, default)

    def every(self, *names: str) -> list[str]:
        """All values of these names."""
        return [value for name, value in self.fields if name in names]


async def read_form(http: HttpRequest, settings: GatewaySettings) -> Form:
    """The form in the body.

    Raises:
        InvalidRequest: no form, or one without a file.
        TooLarge, RequestTimeout: see `read_body`.
    """
    kind = http.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise InvalidRequest(
            f"the body is {kind[:60]!r}", hint="send multipart/form-data with a field `file`", param="body"
        )
    raw = await read_body(http, settings)
    form = await in_thread(lambda: asyncio.run(_parsed(http, raw)), chars=len(raw))
    file, fields = None, []
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.append((name, value))
        else:
            with value.file as content:
                file = (value, content.read()) if name == "file" else file
    if file is None:
        raise InvalidRequest("the form has no file", hint="send it as the field `file`", param="file")
    upload, data = file
    return Form(
        name=(upload.filename or "").replace("\\", "/").rpartition("/")[2][:MAX_NAME],
        media_type=upload.content_type or "",
        data=data,
        fields=tuple(fields),
    )


async def _parsed(http: HttpRequest, raw: bytes) -> FormData:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield raw

    parser = MultiPartParser(
        http.headers, whole(), max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    parser.spool_max_size = len(raw) + 1  # it is in memory already, and stays there
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(
            f"the form cannot be read: {error.message[:200]}",
            hint="send one file and few fields as multipart/form-data",
            param="body",
        ) from None
    except (KeyError, UnicodeDecodeError, ValueError):
        raise InvalidRequest(
            "the form cannot be read", hint="send multipart/form-data with a boundary", param="body"
        ) from None
