"""Agents on real models, for tests of what they can do."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from pentad.agent.journal import Journal
from pentad.agent.memories import Memories
from pentad.agent.memory.base import MemoryServices
from pentad.agent.memory.store import LongTerm
from pentad.agent.runtime import AgentRuntime
from pentad.application.config import EngineSettings
from pentad.application.local_backend import local_backend
from pentad.choice import Choice
from pentad.model.embedding import LocalEmbedder
from pentad.model.loading import open_model
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService


@asynccontextmanager
async def real_runtime(
    model: pathlib.Path,
    folder: pathlib.Path,
    embedder: pathlib.Path | None = None,
    *,
    threads: int | None = None,
) -> AsyncIterator[tuple[AgentRuntime, ModelService, LongTerm | None]]:
    """A runtime on our engine with one model, and with long-term memory where an embedder is given."""
    backend = local_backend(open_model(model), EngineSettings(kv_bytes=384 << 20, threads=threads))
    embedders = {} if embedder is None else {"minilm": LocalEmbedder.open(embedder, name="minilm")}
    models = ModelService({"model": backend}, embedders=embedders, router=Fixed())
    services = MemoryServices(
        path=folder / "memory.db", models=models, embedder="minilm" if embedders else None
    )
    memories = Memories(services)
    memory = cast(LongTerm | None, memories.get(Choice(name="store")))
    runtime = AgentRuntime(models, Journal(folder / "journal.db"), memory=memories)
    try:
        yield runtime, models, memory
    finally:
        await runtime.close()
        await models.close()
        memories.close()
