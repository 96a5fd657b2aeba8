"""Only the large numbers of a row, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.errors import BackendFailed
from pentad.execution.codecs.base import Buffer, Floats, array_of
from pentad.execution.codecs.blocks import half_words, of_half_words, of_paired, paired
from pentad.ranges import in_range
from pentad.types import Exactness

_MOST = 7
_WIDE_BITS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """The largest numbers of each row in bfloat16 or four bits, a bit for each place; the others are zero.

    Exactness: lossy; the metric is perplexity. With `keep_fraction` 1 and 16 bits only exact zeros are left
    out. Cost: one bit a number, and `bits` for each that is kept; a partial sort of each row.
    Source: activation sparsity as in Liu et al. 2023 (Deja Vu); a bitmap codes the places, and there is no
    error feedback, since links keep no state.
    """

    name: ClassVar[str] = "sparse"
    exactness: ClassVar[Exactness] = "lossy"

    keep_fraction: float = 0.55
    """Of a row's numbers, how many are sent at most."""
    bits: int = 4
    """Of a number that is sent: 16; or 4, with a scale for each row, but 16 for the few that range far."""

    def __post_init__(self) -> None:
        in_range("keep_fraction", self.keep_fraction, above=0, most=1)
        if self.bits not in (4, 16):
            raise ValueError(f"bits is {self.bits}, must be 4 or 16")

    def encode(self, rows: Floats) -> list[Buffer]:
        """See Codec."""
        most = max(1, round(self.keep_fraction * rows.shape[1]))
        sizes = np.abs(rows)
        if most < rows.shape[1] and len(rows):
            least = np.partition(sizes, -most, axis=1)[:, -most, None]
            places = (sizes >= least) & (rows != 0)
        else:
            places = rows != 0
        found: list[Buffer] = [np.packbits(places, axis=None).tobytes()]
        kept = rows[places]
        if self.bits == 16:
            return [*found, half_words(kept)]
        # The few that range far are written in 16 bits, so that they do not set the step of the others.
        steps = np.abs(rows).sum(1) / np.maximum(places.sum(1), 1) * _WIDE_BITS / 16
        step = steps.astype(np.float32)
        each = np.repeat(step, places.sum(1))
        codes = np.rint(kept / np.where(each > 0, each, 1))
        wide = np.flatnonzero(np.abs(codes) > _MOST).astype("<u4")
        small = np.clip(codes, -_MOST, _MOST).astype(np.int8)
        return [*found, paired(small), step.astype("<f4").tobytes(), wide.tobytes(), half_words(kept[wide])]

    def decode(self, buffers: Sequence[Buffer], shape: tuple[int, int]) -> Floats:
        """See Codec."""
        size = shape[0] * shape[1]
        bits = array_of(buffers[0], "u1", (-(-size // 8),)).astype(np.uint8)
        places = np.unpackbits(bits, count=size).astype(bool).reshape(shape)
        count = int(places.sum())
        found = np.zeros(shape, np.float32)
        if self.bits == 16:
            found[places] = of_half_words(array_of(buffers[1], "<u2", (count,)))
            return found
        codes = of_paired(array_of(buffers[1], "u1", (-(-count // 2),)).astype(np.uint8), count)
        steps = array_of(buffers[2], "<f4", (shape[0],)).astype(np.float32)
        kept = codes * np.repeat(steps, places.sum(1))
        wide = array_of(buffers[3], "<u4", (memoryview(buffers[3]).nbytes // 4,)).astype(np.int64)
        if len(wide) and wide.max() >= count:
            raise BackendFailed(f"number {wide.max()} came where {count} were sent")
        kept[wide] = of_half_words(array_of(buffers[4], "<u2", (len(wide),)))
        found[places] = kept
        return found

    def error_bound(self, rows: Floats) -> Floats:
        """See Codec."""
        return np.full_like(rows, np.inf)
