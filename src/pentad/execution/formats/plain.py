"""Numbers stored as they are."""

from __future__ import annotations

from typing import Final

import numpy as np

from pentad.execution.formats.base import BlockFormat, Bytes, Numbers


def _f32(blocks: Bytes) -> Numbers:
    return Numbers(numbers=np.ascontiguousarray(blocks).view(np.float32).copy())


def _f16(blocks: Bytes) -> Numbers:
    return Numbers(numbers=np.ascontiguousarray(blocks).view(np.float16).astype(np.float32))


def _bf16(blocks: Bytes) -> Numbers:
    high = np.ascontiguousarray(blocks).view(np.uint16).astype(np.uint32)
    return Numbers(numbers=np.left_shift(high, np.uint32(16)).view(np.float32))


PLAIN: Final = (
    BlockFormat(name="F32", ggml=0, elements=1, bytes=4, decode=_f32),
    BlockFormat(name="F16", ggml=1, elements=1, bytes=2, decode=_f16),
    BlockFormat(name="BF16", ggml=30, elements=1, bytes=2, decode=_bf16),
)
