"""Numbers as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pentad.execution.codecs.base import Buffer, Floats, array_of
from pentad.types import Exactness


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Every number in float32.

    Exactness: lossless. Cost: four bytes a number, no computing.
    Source: our own; the reference for the others.
    """

    name: ClassVar[str] = "plain"
    exactness: ClassVar[Exactness] = "lossless"

    def encode(self, rows: Floats) -> list[Buffer]:
        """See Codec."""
        return [np.ascontiguousarray(rows, "<f4").data.cast("B")] if rows.size else [b""]

    def decode(self, buffers: Sequence[Buffer], shape: tuple[int, int]) -> Floats:
        """See Codec."""
        found: Floats = array_of(buffers[0], "<f4", shape).astype(np.float32, copy=False)
        return found

    def error_bound(self, rows: Floats) -> Floats:
        """See Codec."""
        return np.zeros_like(rows)
