"""SourceEncoder: the encoder of an encoder-decoder, whose result is kept as each layer's keys and values."""

from __future__ import annotations

import numpy as np
import torch

from pentad.execution.batch import Sources
from pentad.execution.torch.attention import TextAttention
from pentad.execution.torch.cache import KVCache
from pentad.execution.torch.program import Program


class SourceEncoder:
    """Encodes sources and writes what the decoder's cross-attention reads of them.

    Cost: the encoder once per source, beside two products per decoder layer; nothing of it is left but
    keys and values in the blocks that the engine gave.
    """

    def __init__(self, decoder: Program, cache: KVCache) -> None:
        weights = decoder.weights.encoder
        assert weights is not None, "the model has no encoder"
        self._program = Program(decoder.spec.reader, weights)
        self._readers = tuple(layer.cross for layer in decoder.weights.layers)
        self._cache = cache

    def encode(self, sources: Sources) -> None:
        """Encodes what is new in this step, sources of equal length next to each other together."""
        if not len(sources.token_ids):
            return
        cache, program = self._cache, self._program
        lengths = np.diff(sources.starts).tolist()
        positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
        hidden = program.hidden(
            torch.from_numpy(sources.token_ids).to(cache.device),
            torch.from_numpy(positions).to(cache.device),
            TextAttention(program.spec, lengths, program.rules),
        )
        cache.clear_begun(sources.slots)
        slots = torch.from_numpy(sources.slots).to(cache.device, torch.int64)
        for i, reader in enumerate(self._readers):
            if reader is not None:
                cache.write(i, slots, reader.kept(hidden))
