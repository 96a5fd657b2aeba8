"""Weights as they lie in files: raw blocks with a format name, opened lazily, never copied here.

The program knows canonical names only; a source maps them to its file's names. Canonical names:
`embed`, `positions`, `token_types`, `embed_norm`, `final_norm`, `head`, and per layer i
`layers.{i}.` + `attn_norm`, `q`, `k`, `v`, `o`, `q_norm`, `k_norm`, `ffn_norm`, `gate`, `up`,
`down`; a bias adds `.bias`. Matrices are [out, in].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

    @property
    def origins(self) -> tuple[npt.NDArray[np.uint8], ...]:
        """The bytes that `data` is read from."""
        return (self.data,)

    def held(self) -> StoredTensor:
        """The same with its bytes in reach, for who reads them in parts."""
        return self


class MadeTensor(StoredTensor):
    """A tensor put together of others whenever its `data` is asked for, and kept nowhere.

    Ask once, use it and let it go: a model's memory is then that of its largest such tensor.
    """

    __slots__ = ("_make", "_origins")
    _make: Callable[[], npt.NDArray[np.uint8]]
    _origins: tuple[npt.NDArray[np.uint8], ...]

    def __init__(
        self,
        *,
        name: str,
        format: TensorFormat,
        shape: tuple[int, ...],
        make: Callable[[], npt.NDArray[np.uint8]],
        origins: tuple[npt.NDArray[np.uint8], ...],
    ) -> None:
        """`origins`: the views of files that `make` reads."""
        for key, value in (("name", name), ("format", format), ("shape", shape)):
            object.__setattr__(self, key, value)
        object.__setattr__(self, "_make", make)
        object.__setattr__(self, "_origins", origins)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        return self._make()

    @property
    def origins(self) -> tuple[npt.NDArray[np.uint8], ...]:
        return self._origins

    def held(self) -> StoredTensor:
        return StoredTensor(name=self.name, format=self.format, shape=self.shape, data=self.data)


class WeightSource(Protocol):
    """Where a runner gets its weights."""

    def names(self) -> Iterable[str]:
        """Canonical names present."""
        ...

    def tensor(self, name: str) -> StoredTensor:
        """The tensor of that canonical name. Raises KeyError when absent."""
        ...
