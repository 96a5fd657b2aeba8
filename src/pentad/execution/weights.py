"""Weights as they lie in files: raw blocks with a format name, opened lazily, never copied here.

The program knows canonical names only; a source maps them to its file's names. Canonical names:
`embed`, `positions`, `token_types`, `embed_norm`, `final_norm`, `head`, and per layer i
`layers.{i}.` + `attn_norm`, `q`, `k`, `v`, `o`, `q_norm`, `k_norm`, `ffn_norm`, `gate`, `up`,
`down`; a bias adds `.bias`. Matrices are [out, in].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

TensorFormat = Literal["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor as stored. `data` is a read-only view of the mapped file.

    `format` names the block layout (ggml's names); `shape` is the logical shape, row-major.
    """

    name: str
    format: TensorFormat
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]


class WeightSource(Protocol):
    """Where a runner gets its weights."""

    def names(self) -> Iterable[str]:
        """Canonical names present."""
        ...

    def tensor(self, name: str) -> StoredTensor:
        """The tensor of that canonical name. Raises KeyError when absent."""
        ...
