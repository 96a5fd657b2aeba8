"""Wire: how one request goes to a remote server and its answer comes back, in chunks of OpenAI's shape."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from pentad.types import Decision, Request

Chunk = Any
"""Decoded JSON in the shape of OpenAI's stream; not trusted, StreamReader checks it."""


class Chunks(Protocol):
    """A running answer."""

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    async def close(self) -> None:
        """Ends the connection that the answer comes on."""
        ...


class Wire(Protocol):
    """One server's protocol. Raises whatever its client raises: `openai_errors.translated` knows it."""

    async def prepared(self, request: Request) -> tuple[Request, dict[str, Any], tuple[Decision, ...]]:
        """The request as the server gets it, its fields, and what was done about wishes it cannot be told.

        Raises Incompatible for what cannot be said there.
        """
        ...

    async def send(self, request: Request, fields: dict[str, Any]) -> Chunks:
        """Sends the fields of a prepared request; the answer has begun when this returns."""
        ...

    def stats(self) -> dict[str, float]:
        """What the server said of itself lately, by name; empty where it says nothing."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...
