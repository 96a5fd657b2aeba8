"""Long-term memory with its embedding model alone: for `pentad memory search` and `correct`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pentad.agent.embedding import embed_beginnings
from pentad.agent.memory.base import Recollection, Scope
from pentad.agent.memory.lineage import all_there
from pentad.agent.memory.records import memories
from pentad.agent.memory.store import LongTerm
from pentad.application.config import Settings
from pentad.application.folders import use_home
from pentad.errors import InvalidRequest
from pentad.execution.backend import Embedder
from pentad.model.embedding import LocalEmbedder
from pentad.model.relevance import Relevance
from pentad.model.store import ModelStore
from pentad.types import Usage


@dataclass(frozen=True)
class _Vectors:
    vectors: list[list[float]]
    usage: Usage = field(default_factory=Usage)


class EmbeddingAlone:
    """The part of a model service that asks for vectors."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def embed(self, _: str, texts: Sequence[str]) -> _Vectors:
        vectors, tokens = await asyncio.to_thread(self._embedder.embed_counted, texts)
        return _Vectors(vectors, Usage(prompt_tokens=tokens))


async def recalled(
    settings: Settings, cue: str, *, tenant: str, agent: str | None, k: int
) -> list[Recollection]:
    """The `k` items that matter most to the cue, best first; raises as `_opened` does."""
    if not settings.memory_path.exists():
        return []
    with _opened(settings) as memory:
        return await memory.query(cue, k=k, scope=Scope(tenant=tenant, agent=agent))


async def corrected(settings: Settings, ident: str, text: str, *, tenant: str) -> str:
    """Puts a text in the place of an item, of the same agent and kind; the id of what holds now.

    Raises NotFound, and as `_opened` does.
    """
    found = [m for m in memories(settings.memory_path, tenant=tenant) if m.item.id == ident]
    all_there([ident], [str(m.item.id) for m in found])
    item = replace(found[0].item, id=None, text=text, source="correction", created_s=None, superseded_by=None)
    with _opened(settings) as memory:
        return await memory.supersede(ident, item, Scope(tenant=tenant, agent=found[0].agent))


def relevance_alone(settings: Settings) -> Relevance:
    """Nearness by the embedding model of the settings, under the name that runs know it by.

    Raises InvalidRequest without one, ModelNotFound when it is not in the store.
    """
    embedder = embedder_alone(settings, "training a retriever needs an embedding model")
    embed = functools.partial(embed_beginnings, cast(Any, EmbeddingAlone(embedder)), embedder.name)
    return Relevance(embed, encoder=embedder.name)


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[LongTerm]:
    """Raises InvalidRequest without an embedding model, ModelNotFound when it is not in the store."""
    embedder = embedder_alone(settings, "memory is searched with an embedding model")
    memory = LongTerm(settings.memory_path, cast(Any, EmbeddingAlone(embedder)), embedder=embedder.name)
    try:
        yield memory
    finally:
        memory.close()


def embedder_alone(settings: Settings, why: str) -> LocalEmbedder:
    """The embedding model of the settings. Raises InvalidRequest without one, ModelNotFound."""
    if settings.embedding_model is None:
        raise InvalidRequest(why, hint="set --embedding-model")
    stored = ModelStore(use_home(settings)).resolve(settings.embedding_model)
    return LocalEmbedder.open(stored.path, name=stored.name, kernels=settings.engine.kernels)
