"""PooledBackend and PooledEmbedder: local models that are loaded when they are asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar, cast

from pentad.errors import Incompatible, Unavailable
from pentad.execution.backend import Backend, Capabilities, Delta, Embedder, Reranker, StreamDone
from pentad.model.codecs import PromptRenderer, TokenCodec
from pentad.model.embedding_recipe import EmbeddingRecipe
from pentad.model.tokenizer_facts import TokenizerFacts
from pentad.resource.model_slot import ModelSlot
from pentad.types import Request, Span

T = TypeVar("T")
LOAD_SPAN: Final = "load"
"""Of the time that a request waited for its model."""
_GAUGES: Final = ("running", "waiting", "kv_blocks_held", "kv_usage_fraction", "kv_claimed_fraction")
"""Of a model that is not loaded: 0."""


class PooledBackend:
    """Serves one model of a pool; requests wait while it is loaded.

    Args:
        slot: of the model.
        capabilities: known from its files; once it is loaded, its own count.
        reader: opens its tokenizer alone, for what needs no weights; None where the model has none of ours.
    """

    def __init__(
        self,
        slot: ModelSlot[Backend],
        capabilities: Capabilities,
        *,
        reader: Callable[[], TokenCodec] | None = None,
    ) -> None:
        self.slot = slot
        self._capabilities = capabilities
        self.reader = reader
        self._last: dict[str, float] = {}

    @property
    def capabilities(self) -> Capabilities:
        if self.slot.value is not None:
            self._capabilities = self.slot.value.capabilities
        return self._capabilities

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The answer as it is made, behind the model's load. Raises what a lease and the model raise."""
        clock = self.slot.clock
        asked_s, loaded = clock(), self.slot.state == "loaded"
        async with self.slot.lease() as backend:
            span = Span(layer="resource", name=LOAD_SPAN, start_s=asked_s, end_s=clock())
            async with aclosing(cast("AsyncGenerator[Delta, None]", backend.stream(request))) as deltas:
                async for delta in deltas:
                    if isinstance(delta, StreamDone) and not loaded:
                        usage = delta.usage
                        delta = StreamDone(usage=replace(usage, spans=(span, *usage.spans)))
                    yield delta

    def count_tokens(self, request: Request) -> int:
        """See Backend; loads no weights."""
        loaded = self.slot.value
        if loaded is not None:
            return loaded.count_tokens(request)
        return cast("Backend", self._codec()).count_tokens(request)

    def prompt_text(self, request: Request) -> str:
        """See PromptRenderer. Raises Incompatible where the model is of another engine."""
        return cast("PromptRenderer", self._codec()).prompt_text(request)

    def tokenize(self, text: str, *, prefix: bool = False) -> list[int]:
        """See TokenCodec."""
        return self._codec().tokenize(text, prefix=prefix)

    def detokenize(self, ids: Sequence[int]) -> str:
        """See TokenCodec."""
        return self._codec().detokenize(ids)

    def tokenizer_facts(self) -> TokenizerFacts:
        """See TokenCodec."""
        return self._codec().tokenizer_facts()

    def _codec(self) -> TokenCodec:
        loaded: object = self.slot.value
        if isinstance(loaded, TokenCodec):
            return loaded
        if self.reader is None:
            raise Incompatible(
                f"the tokenizer of model {self.slot.name!r} is not on this machine",
                hint="choose a model that runs here",
                param="model",
            )
        return self.reader()

    def stats(self) -> dict[str, float]:
        """See Backend; requests that wait for a load count as waiting; `load_s` is what a load takes."""
        if self.slot.value is not None:
            self._last = self.slot.value.stats()
            found = dict(self._last)
        else:
            found = self._last | {name: 0.0 for name in _GAUGES if name in self._last}
        load_s = 0.0 if self.slot.state == "loaded" else self.slot.load_s
        return found | {"waiting": found.get("waiting", 0.0) + self.slot.waiting, "load_s": load_s}

    def check(self) -> str | None:
        """See Backend. A model that is not loaded is healthy: others live on where its load failed."""
        return None if self.slot.value is None else self.slot.value.check()

    async def close(self) -> None:
        """Nothing: the pool unloads its models."""


class AdaptedBackend(PooledBackend):
    """The same model with a low-rank adapter, under a name of its own; both are in the same batches.

    Args:
        key: of the adapter in the engine.
        base: the model that it is trained for.
        name: of both together.
        size_bytes: what the adapter takes in memory.
    """

    def __init__(self, key: str, base: PooledBackend, *, name: str, size_bytes: int = 0) -> None:
        super().__init__(base.slot, base.capabilities, reader=base.reader)
        self.key = key
        self.size_bytes = size_bytes
        self.users = 0
        """Requests that are answered with it now."""
        self._name = name

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, model=self._name)

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """See PooledBackend; computed with the adapter."""
        self.users += 1
        try:
            async with aclosing(super().stream(replace(request, adapter=self.key))) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self.users -= 1


class PooledEmbedder:
    """Embeds with a model of a pool.

    Args:
        slot: of the model.
        dimensions: of its vectors, known from its files.
        recipe: how it embeds, likewise.
    """

    def __init__(self, slot: ModelSlot[Embedder], dimensions: int, recipe: EmbeddingRecipe) -> None:
        self.slot = slot
        self.dimensions = dimensions
        self.recipe = recipe

    def embed_counted(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """See Embedder. Raises Unavailable while it is not loaded: whoever can wait takes a lease."""
        return _loaded(self.slot).embed_counted(texts)


class PooledReranker:
    """Scores with a model of a pool."""

    def __init__(self, slot: ModelSlot[Reranker]) -> None:
        self.slot = slot

    def score_counted(self, query: str, documents: Sequence[str]) -> tuple[list[float], int]:
        """See Reranker. Raises Unavailable while it is not loaded: whoever can wait takes a lease."""
        return _loaded(self.slot).score_counted(query, documents)


def _loaded(slot: ModelSlot[T]) -> T:
    if slot.value is None:
        raise Unavailable(f"model {slot.name!r} is not loaded", hint="try again")
    return slot.value


def slot_of(served: Backend | Embedder | Reranker | None) -> ModelSlot[Any] | None:
    """The model's place in the pool; None for one that is always there, or elsewhere."""
    return served.slot if isinstance(served, PooledBackend | PooledEmbedder | PooledReranker) else None


@asynccontextmanager
async def leased(served: T, keep_s: float | Literal["same"] | None = "same") -> AsyncIterator[T]:
    """The embedder or reranker, loaded for as long as it is used. Raises what `ModelSlot.lease` does."""
    if isinstance(served, PooledEmbedder | PooledReranker):
        async with served.slot.lease(keep_s) as loaded:
            yield cast("T", loaded)
    else:
        yield served
