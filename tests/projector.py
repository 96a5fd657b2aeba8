"""A projector for tests: makes rows of input embeddings of any bytes, the same ones each time."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def projected(data: bytes, count: int, width: int) -> npt.NDArray[np.float32]:
    """[count, width] rows of about the size of a table's, which depend on every byte."""
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
    rows = np.random.default_rng(seed).standard_normal((count, width)) * width**-0.5
    return rows.astype(np.float32)
