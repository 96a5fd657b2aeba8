"""Weights as they lie in files: raw blocks with a format name, opened lazily, never copied here.

The program knows canonical names only; a source maps them to its file's names. Canonical names:
`embed`, `positions`, `token_types`, `embed_norm`, `final_norm`, `head`, and per layer i
`layers.{i}.` + `attn_norm`, `q`, `k`, `v`, `o`, `q_norm`, `k_norm`, `ffn_norm`, `gate`, `up`,
`down`; a bias adds `.bias`. Matrices are [out, in]. Routed experts have `router`, and `experts.gate`,
`experts.up` and `experts.down` of one matrix for each expert, [X, out, in]; shared ones `shared.gate` ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

# fmt: off
TensorFormat = Literal[
    "F32", "F16", "BF16",
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q8_1",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K",
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS",
    "TQ1_0", "TQ2_0", "MXFP4",
    "INT4", "UINT4", "INT8", "FP8", "NF4",
]
# fmt: on


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

    def renamed(self, name: str) -> StoredTensor:
        """The same under another name."""
        return StoredTensor(name=name, format=self.format, shape=self.shape, data=self.data)

    def slices(self) -> Iterator[StoredTensor]:
        """Along the first axis, of a stack its matrices one by one."""
        count, shape = self.shape[0], self.shape[1:]
        for i, data in enumerate(self.data.reshape(count, -1)):
            yield StoredTensor(name=f"{self.name}[{i}]", format=self.format, shape=shape, data=data)


class MadeTensor(StoredTensor):
    """A tensor put together of others whenever its `data` is asked for, and kept nowhere.

    Ask once, use it and let it go: a model's memory is then that of its largest such tensor.
    """

    __slots__ = ("_make", "_members", "_origins")
    _make: Callable[[], npt.NDArray[np.uint8]]
    _members: tuple[StoredTensor, ...]
    _origins: tuple[npt.NDArray[np.uint8], ...]

    def __init__(
        self,
        *,
        name: str,
        format: TensorFormat,
        shape: tuple[int, ...],
        make: Callable[[], npt.NDArray[np.uint8]],
        origins: tuple[npt.NDArray[np.uint8], ...],
        members: tuple[StoredTensor, ...] = (),
    ) -> None:
        """A tensor that `make` gives the bytes of.

        Args:
            origins: the views of files that `make` reads.
            members: its slices along the first axis, where each can be had without the others.
        """
        for key, value in (("name", name), ("format", format), ("shape", shape)):
            object.__setattr__(self, key, value)
        object.__setattr__(self, "_make", make)
        object.__setattr__(self, "_origins", origins)
        object.__setattr__(self, "_members", members)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        return self._make()

    @property
    def origins(self) -> tuple[npt.NDArray[np.uint8], ...]:
        return self._origins

    def held(self) -> StoredTensor:
        return StoredTensor(name=self.name, format=self.format, shape=self.shape, data=self.data)

    def renamed(self, name: str) -> StoredTensor:
        return MadeTensor(
            name=name,
            format=self.format,
            shape=self.shape,
            make=self._make,
            origins=self._origins,
            members=self._members,
        )

    def slices(self) -> Iterator[StoredTensor]:
        yield from self._members or self.held().slices()


class WeightSource(Protocol):
    """Where a runner gets its weights."""

    def names(self) -> Iterable[str]:
        """Canonical names present."""
        ...

    def tensor(self, name: str) -> StoredTensor:
        """The tensor of that canonical name. Raises KeyError when absent."""
        ...
