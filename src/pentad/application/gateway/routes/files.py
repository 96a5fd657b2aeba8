"""/v1/files: uploads that messages name by their id, as OpenAI's and Anthropic's clients know them."""

from __future__ import annotations

import datetime

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from pentad.application.gateway.answers import json_response
from pentad.application.gateway.core import Gateway
from pentad.application.gateway.exchange import exchange_of
from pentad.application.gateway.file_store import StoredFile
from pentad.application.gateway.forms import read_form
from pentad.application.gateway.schemas.files import FileDeleted, FileList, FileObject
from pentad.content import signature


def routes(gateway: Gateway) -> list[Route]:
    """Upload, list, read and delete; each tenant sees its own."""
    store = gateway.files

    async def upload(http: HttpRequest) -> Response:
        form = await read_form(http, gateway.settings)
        file = store.put(
            exchange_of(http).tenant,
            form.name or "upload",
            signature(form.data) or form.media_type,
            form.field("purpose", "user_data")[:64],
            form.data,
        )
        return json_response(_shown(file, http))

    async def listed(http: HttpRequest) -> Response:
        found = [_shown(file, http) for file in store.list(exchange_of(http).tenant)]
        ends = (found[0].id, found[-1].id) if found else (None, None)
        return json_response(FileList(data=found, first_id=ends[0], last_id=ends[1]))

    def named(http: HttpRequest) -> StoredFile:
        return store.get(exchange_of(http).tenant, http.path_params["file_id"])

    async def read(http: HttpRequest) -> Response:
        return json_response(_shown(named(http), http))

    async def content(http: HttpRequest) -> Response:
        # Never as what it says that it is: a page among uploads would be one of ours.
        headers = {"content-disposition": "attachment"}
        return Response(named(http).data, media_type="application/octet-stream", headers=headers)

    async def delete(http: HttpRequest) -> Response:
        file = named(http)
        store.remove(exchange_of(http).tenant, file.id)
        return json_response(FileDeleted(id=file.id))

    return [
        Route("/v1/files", upload, methods=["POST"]),
        Route("/v1/files", listed, methods=["GET"]),
        Route("/v1/files/{file_id}", read, methods=["GET"]),
        Route("/v1/files/{file_id}", delete, methods=["DELETE"]),
        Route("/v1/files/{file_id}/content", content, methods=["GET"]),
    ]


def _shown(file: StoredFile, http: HttpRequest) -> FileObject:
    created: int | str = file.created_s
    if exchange_of(http).dialect == "anthropic":
        created = datetime.datetime.fromtimestamp(file.created_s, datetime.UTC).isoformat()
    return FileObject(
        id=file.id,
        filename=file.name,
        created_at=created,
        bytes=len(file.data),
        size_bytes=len(file.data),
        mime_type=file.media_type,
        purpose=file.purpose,
    )
