"""ModelPort: the part of the model service that agents call. ModelService is one; tests bring others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from pentad.errors import Incompatible
from pentad.execution.backend import Capabilities, Completion, Delta
from pentad.model.prices import Price
from pentad.types import Request, Usage


class Card(Protocol):
    """What is known about one served model."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def context_length(self) -> int | None: ...

    @property
    def capabilities(self) -> Capabilities | None: ...


class Vectors(Protocol):
    """Embeddings of several texts, in the order asked."""

    @property
    def vectors(self) -> list[list[float]]: ...

    @property
    def usage(self) -> Usage: ...


class ModelPort(Protocol):
    """Text, tokens and vectors from models."""

    @property
    def enforces(self) -> frozenset[str]:
        """Fields of an objective that the choice of the model keeps."""
        ...

    async def prepare(self, *requests: Request) -> None:
        """Has what the choice of their model takes time for made off the event loop; asked before it."""
        ...

    def routed(self, request: Request) -> Request:
        """The request with its model chosen; asked once, before anything is counted or reserved for it."""
        ...

    def chosen(self, ways: Mapping[str, Request]) -> tuple[str, Request]:
        """One of several ways of asking the same, by name, and its request as `routed` gives it."""
        ...

    def judge(self, request: Request, *, right: bool) -> None:
        """Tells how the answer to a routed request has gone; counted where somebody goes by it."""
        ...

    def stream(self, request: Request) -> AsyncGenerator[Delta, None]: ...

    async def complete(self, request: Request) -> Completion: ...

    def count_tokens(self, request: Request) -> int: ...

    def prompt_text(self, request: Request) -> str: ...

    async def embed(self, model: str, texts: Sequence[str]) -> Vectors: ...

    def models(self) -> Sequence[Card]: ...

    def price(self, model: str) -> Price: ...

    def stats(self) -> Mapping[str, Mapping[str, float]]:
        """Each backend's gauges and counters, by model name."""
        ...


def count_text(models: ModelPort, model: str, text: str) -> int:
    """Tokens of a text for the model; where its tokenizer is remote, a byte in three, which is many."""
    try:
        return models.count_tokens(Request(id="count", model=model, text=text))
    except Incompatible:
        return len(text.encode("utf-8", "replace")) // 3 + 1
