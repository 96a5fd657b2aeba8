"""What a model file has: tensors by name, and where each lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pentad.execution.weights import StoredTensor


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
