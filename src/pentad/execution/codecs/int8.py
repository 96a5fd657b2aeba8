"""Eight bits a number, as Distributed Llama sends what its nodes hand to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.codecs.base import Buffer, Floats, array_of
from pentad.execution.codecs.blocks import coded, half_words, of_half_words, padded, scales_of
from pentad.ranges import in_range
from pentad.types import Exactness

_MOST = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8:
    """Codes of eight bits, with a scale for each block of a row.

    Exactness: bounded; no number is further off than half a step, 1/254 of the largest of its block.
    Cost: 8.5 bits a number in blocks of 32, and a pass over the numbers at both ends.
    Source: Distributed Llama (Tadych 2024), `sync_type q80`; scales are bfloat16 here, rounded up.
    """

    name: ClassVar[str] = "int8"
    exactness: ClassVar[Exactness] = "bounded"

    block: int = 32
    """Numbers with a scale in common."""

    def __post_init__(self) -> None:
        in_range("block", self.block, least=8, most=4096)

    def encode(self, rows: Floats) -> list[Buffer]:
        """See Codec."""
        blocks = padded(rows, self.block)
        scales = scales_of(blocks, _MOST)
        return [coded(blocks, scales, _MOST).tobytes(), half_words(scales)]

    def decode(self, buffers: Sequence[Buffer], shape: tuple[int, int]) -> Floats:
        """See Codec."""
        count = -(-shape[1] // self.block)
        codes = array_of(buffers[0], "i1", (shape[0], count, self.block))
        scales = of_half_words(array_of(buffers[1], "<u2", (shape[0], count)))
        found = codes.astype(np.float32) * scales[..., None]
        return np.ascontiguousarray(found.reshape(shape[0], count * self.block)[:, : shape[1]])

    def error_bound(self, rows: Floats) -> Floats:
        """See Codec."""
        halves: Floats = scales_of(padded(rows, self.block), _MOST) * np.float32(0.5)
        return np.repeat(halves, self.block, axis=1)[:, : rows.shape[1]]
