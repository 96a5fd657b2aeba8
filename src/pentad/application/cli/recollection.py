"""Long-term memory with its embedding model alone: what `pentad memory search` needs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pentad.agent.memory.base import Recollection, Scope
from pentad.agent.memory.store import LongTerm
from pentad.application.config import Settings
from pentad.application.folders import use_home
from pentad.errors import InvalidRequest
from pentad.execution.backend import Embedder
from pentad.model.embedding import LocalEmbedder
from pentad.model.store import ModelStore
from pentad.types import Usage


@dataclass(frozen=True)
class _Vectors:
    vectors: list[list[float]]
    usage: Usage = field(default_factory=Usage)


class _Embedding:
    """The part of a model service that memory asks."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def embed(self, _: str, texts: Sequence[str]) -> _Vectors:
        vectors, tokens = await asyncio.to_thread(self._embedder.embed_counted, texts)
        return _Vectors(vectors, Usage(prompt_tokens=tokens))


async def recalled(
    settings: Settings, cue: str, *, tenant: str, agent: str | None, k: int
) -> list[Recollection]:
    """The `k` items that matter most to the cue, best first.

    Raises InvalidRequest without an embedding model, ModelNotFound when it is not in the store.
    """
    if settings.embedding_model is None:
        raise InvalidRequest("memory is searched with an embedding model", hint="set --embedding-model")
    if not settings.memory_path.exists():
        return []
    stored = ModelStore(use_home(settings)).resolve(settings.embedding_model)
    embedder = LocalEmbedder.open(stored.path, name=stored.name, kernels=settings.engine.kernels)
    memory = LongTerm(settings.memory_path, cast(Any, _Embedding(embedder)), embedder=stored.name)
    try:
        return await memory.query(cue, k=k, scope=Scope(tenant=tenant, agent=agent))
    finally:
        memory.close()
