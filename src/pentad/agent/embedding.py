"""Vectors of texts that may be longer than the embedding model reads."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pentad.agent.ports import ModelPort
from pentad.errors import ContextLengthExceeded
from pentad.model.relevance import Relevance


def relevance_of(models: ModelPort) -> Relevance:
    """Scores by the first embedding model that is served, or by words where none is."""
    encoder = next((card.name for card in models.models() if card.kind == "embed"), None)
    if encoder is None:
        return Relevance(None)
    return Relevance(functools.partial(embed_beginnings, models, encoder), encoder=encoder)


async def embed_beginnings(models: ModelPort, embedder: str, texts: Sequence[str]) -> list[list[float]]:
    """One vector per text; of a text that is too long, of as much of its beginning as fits.

    For finding only: what is found is always the whole text.
    """
    try:
        return (await models.embed(embedder, texts)).vectors
    except ContextLengthExceeded:
        if len(texts) > 1:
            return [(await embed_beginnings(models, embedder, [text]))[0] for text in texts]
        half = texts[0][: len(texts[0]) // 2]
        if not half.strip():
            raise
        return await embed_beginnings(models, embedder, [half])
