"""TextVectors: vectors of single texts, now, for choices that cannot wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from pentad.errors import PentadError
from pentad.execution.backend import Embedder
from pentad.model.backends.pooled import slot_of

_MOST_KEPT: Final = 512


class TextVectors:
    """Embeds one text at once where the encoder is loaded, and keeps the latest vectors.

    The caller's thread computes: a few milliseconds for a question. Nothing is loaded for it.

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
        try:
            (row,), _ = loaded.embed_counted([text])
        except PentadError:
            return None
        self._kept[encoder, text] = tuple(row)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[encoder, text]
