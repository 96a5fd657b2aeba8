"""Doubles for agents: a model service that plays a script, and embeddings without a model."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Sequence

from pentad.content import MediaKind
from pentad.errors import ContextLengthExceeded
from pentad.execution.backend import Capabilities
from pentad.model.prices import FREE, Price
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ALL_FORMATS, ScriptedBackend, Turn


class WordEmbedder:
    """An Embedder whose vectors are near when texts share words; the same on every machine."""

    name = "words"

    def __init__(self, dimensions: int = 64, max_words: int = 256) -> None:
        self._dimensions = dimensions
        self._max_words = max_words

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def embed_counted(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """One unit vector per text: each word adds to one axis, chosen by its hash; and how many words."""
        for text in texts:
            if len(text.split()) > self._max_words:
                raise ContextLengthExceeded(f"a text of more than {self._max_words} words")
        return [self._vector(text) for text in texts], sum(len(text.split()) for text in texts)

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * self._dimensions
        for word in re.findall(r"\w+", text.lower()) or [text]:
            digest = hashlib.sha256(word.encode("utf-8", "replace")).digest()
            vector[int.from_bytes(digest[:4], "big") % self._dimensions] += 1.0
        length = math.sqrt(sum(x * x for x in vector))
        return [x / length for x in vector]


def scripted_models(
    turns: Sequence[Turn],
    *,
    context_length: int = 8192,
    repeat: bool = False,
    embedder: bool = False,
    price: Price = FREE,
    media: Collection[MediaKind] = (),
) -> tuple[ModelService, ScriptedBackend]:
    """A model service whose only model plays `turns`, and that model, which records its requests."""
    capabilities = Capabilities(
        model="scripted",
        context_length=context_length,
        formats=ALL_FORMATS,
        token_prompts=True,
        media=frozenset(media),
    )
    backend = ScriptedBackend(turns, capabilities=capabilities, repeat=repeat)
    embedders = {"words": WordEmbedder()} if embedder else {}
    models = ModelService(
        {"scripted": backend}, embedders=embedders, router=Fixed(), prices={"scripted": price}
    )
    return models, backend
