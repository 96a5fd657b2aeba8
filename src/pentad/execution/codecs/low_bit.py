"""Four bits a number, but for the few features that range far: they keep 16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import BackendFailed
from pentad.execution.codecs.base import Buffer, Floats, array_of
from pentad.execution.codecs.blocks import (
    coded,
    half_words,
    of_half_words,
    of_paired,
    padded,
    paired,
    scales_of,
)
from pentad.ranges import in_range
from pentad.types import Exactness

_MOST = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class LowBit:
    """Codes of four bits, and the features with the widest range in bfloat16.

    Exactness: lossy; the metric is the task's accuracy. Cost: 4.3 to 4.5 bits a number.
    Source: Dong et al. 2024, "Towards low-bit communication for tensor parallel LLM inference", section 3;
    which features are kept is seen in each message, where theirs are fixed by calibration.
    """

    name: ClassVar[str] = "low-bit"
    exactness: ClassVar[Exactness] = "lossy"

    kept_fraction: float = 1 / 128
    """Of the features, how many keep 16 bits."""
    block: int = 96
    """Numbers of a row with a scale in common."""

    def __post_init__(self) -> None:
        in_range("kept_fraction", self.kept_fraction, least=0, most=0.5)
        in_range("block", self.block, least=8, most=4096)

    def encode(self, rows: Floats) -> list[Buffer]:
        """See Codec."""
        count = round(self.kept_fraction * rows.shape[1])
        ranges = np.abs(rows).max(0, initial=0)
        kept = np.sort(np.argpartition(-ranges, count)[:count]) if count else np.empty(0, np.int64)
        rest = rows.copy()
        rest[:, kept] = 0
        blocks = padded(rest, self.block)
        scales = scales_of(blocks, _MOST)
        codes = coded(blocks, scales, _MOST).reshape(len(rows), blocks.shape[1] * self.block)[
            :, : rows.shape[1]
        ]
        return [
            paired(codes),
            half_words(scales),
            kept.astype("<u2").tobytes(),
            half_words(rows[:, kept]),
        ]

    def decode(self, buffers: Sequence[Buffer], shape: tuple[int, int]) -> Floats:
        """See Codec."""
        size = shape[0] * shape[1]
        data = array_of(buffers[0], "u1", (-(-size // 2),))
        codes = of_paired(data.astype(np.uint8), size).reshape(shape)
        count = -(-shape[1] // self.block)
        scales = of_half_words(array_of(buffers[1], "<u2", (shape[0], count)))
        found: Floats = codes * np.repeat(scales, self.block, axis=1)[:, : shape[1]]
        kept = array_of(buffers[2], "<u2", (memoryview(buffers[2]).nbytes // 2,)).astype(np.int64)
        if len(kept) and kept.max() >= shape[1]:
            raise BackendFailed(f"feature {kept.max()} came for rows of {shape[1]}")
        found[:, kept] = of_half_words(array_of(buffers[3], "<u2", (shape[0], len(kept))))
        return found.astype(np.float32)

    def error_bound(self, rows: Floats) -> Floats:
        """See Codec."""
        return np.full_like(rows, np.inf)
