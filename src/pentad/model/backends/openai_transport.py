"""The connection to a remote endpoint: no redirect is followed, no answer grows without bound."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2

from pentad.errors import BackendFailed

if TYPE_CHECKING:
    from pentad.model.backends.endpoint import Endpoint

MAX_EVENT_BYTES = 1 << 20
"""One event of a stream, or a whole answer that is no stream."""
TOKEN_BYTES = 4096
"""What one token of an answer may take on the wire, its log probabilities included."""


def client_of(endpoint: Endpoint, transport: httpx2.AsyncBaseTransport | None = None) -> Any:
    """An `openai.AsyncOpenAI` that never retries, since a retry costs tokens and budgets must see it.

    A redirect would carry prompt and key to whoever the endpoint names, so it is an error.

    Args:
        transport: for tests; None makes connections.
    """
    return importlib.import_module("openai").AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.api_key,
        max_retries=0,
        http_client=connections(endpoint, transport),
    )


def connections(endpoint: Endpoint, transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """A client that follows no redirect and reads no answer that is larger than the model's can be."""
    most = MAX_EVENT_BYTES + endpoint.context_length * TOKEN_BYTES
    return httpx2.AsyncClient(
        transport=transport,
        timeout=endpoint.timeout_s,
        follow_redirects=False,
        # Compressed, a small answer could unfold into one that fills the memory.
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [partial(_bound, most_bytes=most)]},
    )


async def _bound(response: httpx2.Response, most_bytes: int) -> None:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        await response.aclose()
        raise BackendFailed("the endpoint compresses its answer, which was not asked for")
    response.stream = _BoundedStream(response.stream, most_bytes)


class _BoundedStream(httpx2.AsyncByteStream):
    """Passes bytes on until an event, or all of them together, have too many."""

    def __init__(self, inner: Any, most_bytes: int) -> None:
        self._inner = inner
        self._most_bytes = most_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = event = 0
        async for piece in self._inner:
            total += len(piece)
            end = max(piece.rfind(mark) for mark in (b"\n\n", b"\r\n\r\n", b"\r\r"))
            event = len(piece) - end if end >= 0 else event + len(piece)
            if event > MAX_EVENT_BYTES or total > self._most_bytes:
                raise BackendFailed(
                    f"the endpoint sent {total} bytes, {event} of them in one event; "
                    f"{self._most_bytes} and {MAX_EVENT_BYTES} are read at most",
                    hint="check what answers at this url",
                )
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
