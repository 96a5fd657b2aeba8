"""TextVectors: vectors of single texts, now, for choices that cannot wait."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from pentad.errors import PentadError
from pentad.execution.backend import Embedder
from pentad.model.backends.pooled import leased, slot_of
from pentad.model.workers import in_thread

_MOST_KEPT: Final = 512


class TextVectors:
    """Embeds one text at once where the encoder is loaded, and keeps the latest vectors.

    Whoever can wait a moment has it computed by `learn`, in a thread, so that `of` finds it; else the
    caller's thread computes: a few milliseconds for a question. Nothing is loaded for it.

    Args:
        embedders: by the name that each is served under; may change.
    """

    def __init__(self, embedders: Mapping[str, Embedder]) -> None:
        self._embedders = embedders
        self._kept: OrderedDict[tuple[str, str], tuple[float, ...]] = OrderedDict()

    def of(self, encoder: str, text: str) -> tuple[float, ...] | None:
        """The unit vector; None where that encoder is not there, not loaded, or does not take the text."""
        if (kept := self._kept.get((encoder, text))) is not None:
            self._kept.move_to_end((encoder, text))
            return kept
        embedder = self._embedders.get(encoder)
        slot = slot_of(embedder)
        loaded = embedder if slot is None else slot.value
        if loaded is None or not text.strip():
            return None
        return self._note(encoder, text, _embedded(loaded, text))

    async def learn(self, encoder: str, text: str) -> None:
        """Computes the vector off the event loop, where `of` would compute it."""
        embedder = self._embedders.get(encoder)
        slot = slot_of(embedder)
        loaded = embedder is not None if slot is None else slot.value is not None
        if embedder is None or not loaded or not text.strip() or (encoder, text) in self._kept:
            return
        with contextlib.suppress(PentadError):  # then there is none, as `of` says
            async with leased(embedder) as ready:
                row = await in_thread(_embedded, ready, text, chars=len(text))
            self._note(encoder, text, row)

    def _note(self, encoder: str, text: str, row: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if row is not None:
            self._kept[encoder, text] = row
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return row


def _embedded(embedder: Embedder, text: str) -> tuple[float, ...] | None:
    try:
        (row,), _ = embedder.embed_counted([text])
    except PentadError:
        return None
    return tuple(row)
