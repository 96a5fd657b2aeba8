"""Vectors of texts from an embedder that may have to be loaded first, with the time of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias, cast, runtime_checkable

from pentad.errors import InvalidRequest
from pentad.execution.backend import Embedder
from pentad.model.backends.pooled import LOAD_SPAN, leased, slot_of
from pentad.model.cards import Embeddings
from pentad.model.embedding_recipe import recipe_of
from pentad.model.workers import in_thread
from pentad.types import Clock, Span, Usage

Texts: TypeAlias = Sequence[str] | Sequence[Sequence[int]]
_Work: TypeAlias = Callable[[], tuple[list[list[float]], int]]


@runtime_checkable
class TokenEmbedder(Protocol):
    """An embedder that takes its model's own tokens, too."""

    def embed_tokens(self, tokens: Sequence[Sequence[int]]) -> tuple[list[list[float]], int]:
        """As `embed_counted`, of tokens as they are: nothing frames them. Raises InvalidRequest."""
        ...


async def embedded(
    embedder: Embedder, texts: Texts, *, model: str, prompt: str | None, dimensions: int | None, clock: Clock
) -> Embeddings:
    """One unit vector per text, computed off the event loop, behind the model's load.

    Args:
        texts: or their tokens, which are taken as they are.
        prompt: the name of what stands in front of every text; None: the model's default.
        dimensions: numbers that a vector is cut to; None: all.

    Raises:
        InvalidRequest: a prompt, size or tokens that the model does not have.
        ContextLengthExceeded: a text is too long.
    """
    recipe = recipe_of(embedder)
    recipe.check_size(dimensions, model=model, width=embedder.dimensions)
    slot, asked_s = slot_of(embedder), clock()
    cold = slot is not None and slot.state != "loaded"
    async with leased(embedder) as loaded:
        started_s = clock()
        if texts and not isinstance(texts[0], str):
            chars, work = (
                sum(map(len, texts)),
                _of_tokens(loaded, cast("Sequence[Sequence[int]]", texts), prompt),
            )
        else:
            prompted = recipe.prompted(cast("Sequence[str]", texts), prompt)
            chars, work = sum(map(len, prompted)), partial(loaded.embed_counted, prompted)
        vectors, tokens = await in_thread(work, chars=chars)
    spans = [Span(layer="execution", name="embed", start_s=started_s, end_s=clock())]
    if cold:
        spans.insert(0, Span(layer="resource", name=LOAD_SPAN, start_s=asked_s, end_s=started_s))
    return Embeddings(
        vectors=recipe.cut(vectors, dimensions), usage=Usage(prompt_tokens=tokens, spans=tuple(spans))
    )


def _of_tokens(embedder: Embedder, tokens: Sequence[Sequence[int]], prompt: str | None) -> _Work:
    if not isinstance(embedder, TokenEmbedder):
        raise InvalidRequest(
            "input holds token ids, which this embedder does not take", hint="send text", param="input"
        )
    if prompt is not None:
        raise InvalidRequest(
            "a prompt goes in front of text, and input holds token ids", hint="send text", param="prompt_name"
        )
    return partial(embedder.embed_tokens, tokens)
