"""OpenAI's chat and text completions, through the official client (extra `openai`)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from pentad.errors import MissingExtra
from pentad.model.backends.openai_requests import request_fields
from pentad.model.backends.openai_transport import client_of
from pentad.model.backends.wires.base import Chunks
from pentad.tracing.context import outgoing
from pentad.types import Decision, Request

if TYPE_CHECKING:
    import httpx2

    from pentad.model.backends.endpoint import Endpoint


class OpenAIWire:
    """See Wire. Raises MissingExtra where the `openai` package is not installed."""

    def __init__(self, endpoint: Endpoint, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        if importlib.util.find_spec("openai") is None:
            raise MissingExtra(
                "a remote endpoint needs the openai package", hint="pip install 'pentad[openai]'"
            )
        self._endpoint = endpoint
        self._transport = transport
        self._client: Any = None

    async def prepared(self, request: Request) -> tuple[Request, dict[str, Any], tuple[Decision, ...]]:
        """See Wire."""
        fields, notes = request_fields(request, self._endpoint)
        return request, fields, notes

    async def send(self, request: Request, fields: dict[str, Any]) -> Chunks:
        """The stream of chunks as decoded JSON; the client's own types are no check of what came."""
        if self._client is None:
            self._client = client_of(self._endpoint, self._transport)
        stream_class = importlib.import_module("openai").AsyncStream
        answer: Chunks = await self._client.post(
            "/completions" if request.text is not None else "/chat/completions",
            body=fields,
            options={"headers": outgoing()},
            cast_to=object,
            stream=True,
            stream_cls=stream_class[object],
        )
        return answer

    def stats(self) -> dict[str, float]:
        """See Wire."""
        return {}

    async def close(self) -> None:
        """See Wire."""
        if self._client is not None:
            await self._client.close()
