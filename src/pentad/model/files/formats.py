"""How each tensor format lays its values out: the arithmetic that every bounds check rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from pentad.execution.weights import StoredTensor, TensorFormat

BLOCKS: Mapping[TensorFormat, tuple[int, int]] = MappingProxyType(
    {
        "F32": (1, 4),
        "F16": (1, 2),
        "BF16": (1, 2),
        "Q4_0": (32, 18),
        "Q4_1": (32, 20),
        "Q5_0": (32, 22),
        "Q5_1": (32, 24),
        "Q8_0": (32, 34),
        "Q4_K": (256, 144),
        "Q5_K": (256, 176),
        "Q6_K": (256, 210),
    }
)
"""Format to (values per block, bytes per block). Blocks run along the last axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Where a tensor lies in its file. `format` is a name that we may not be able to read."""

    name: str
    format: str
    shape: tuple[int, ...]
    """Row-major; matrices are [out, in]."""
    offset: int
    """First byte, from the start of the file."""
    size_bytes: int


class Container(Protocol):
    """One opened model: its tensors by the names in the file."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        ...

    def tensor(self, name: str) -> StoredTensor:
        """A read-only view of the mapped bytes. Raises KeyError, BadModelFile for a format we lack."""
        ...

    def close(self) -> None:
        """Unmaps the files. Views still held keep their mapping until they are dropped."""
        ...
