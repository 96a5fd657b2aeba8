"""Grids of ggml's formats: blocks of 32 with one scale, and k-quants with scales of scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pentad.execution.formats.base import Bytes, Floats
from pentad.execution.formats.table import GEOMETRY
from pentad.execution.rounding.grid import Scales
from pentad.execution.rounding.packing import as_half, half_bytes
from pentad.execution.rounding.search import symmetric, with_offset
from pentad.execution.weights import TensorFormat

Layout = Callable[[Bytes, Bytes], Bytes]
"""Level indices [n, elements] and the head [n, bytes] to whole blocks."""


@dataclass(frozen=True, kw_only=True)
class _FormatGrid:
    """What grids of stored formats share."""

    format: TensorFormat
    levels: Floats
    layout: Layout
    parts: int = 1

    @property
    def elements(self) -> int:
        return GEOMETRY[self.format].elements

    @property
    def bits(self) -> float:
        return GEOMETRY[self.format].bits

    def pack(self, index: Bytes, scales: Scales) -> Bytes:
        assert scales.head is not None, "fit gave it"
        return self.layout(index, scales.head)

    def _by_part(self, values: Floats, weights: Floats | None) -> tuple[Floats, Floats | None]:
        """Values and weights with a row for each part."""
        size = self.elements // self.parts
        if weights is not None:
            weights = np.broadcast_to(weights, values.shape).reshape(-1, size)
        return values.reshape(-1, size), weights


@dataclass(frozen=True, kw_only=True)
class BlockGrid(_FormatGrid):
    """One scale in fp16 for a block, and its least number where `offset`."""

    offset: bool = False

    def fit(self, values: Floats, weights: Floats | None, *, search: bool) -> Scales:
        if not self.offset:
            scale = as_half(symmetric(self.levels, values, weights, search=search))
            return Scales(scale=scale, head=half_bytes(scale))
        return self.given(*with_offset(self.levels, values, weights, search=search, below_zero=False))

    def given(self, scale: Floats, low: Floats) -> Scales:
        """These scales and least numbers [n, 1], of a format that has both."""
        assert self.offset, "asked of formats with a least number alone"
        scale, low = as_half(scale), as_half(low)
        return Scales(scale=scale, offset=low, head=half_bytes(np.concatenate((scale, low), axis=1)))


@dataclass(frozen=True, kw_only=True)
class SuperGrid(_FormatGrid):
    """Scales that are small integers times one in fp16, and minima likewise where `minimum` is set."""

    scale_range: tuple[int, int]
    """Least and largest integer that a part's scale may be."""
    minimum: int = 0
    """Largest integer that a part's minimum may be; 0: parts have none."""
    head: Callable[[Bytes, Bytes, Floats, Floats], Bytes]
    """Integers of scales and minima [n, parts], and what they are multiplied by [n, 1]."""

    def fit(self, values: Floats, weights: Floats | None, *, search: bool) -> Scales:
        rows, wanted = self._by_part(values, weights)
        if self.minimum:
            scale, low = with_offset(self.levels, rows, wanted, search=search, below_zero=True)
        else:
            scale, low = symmetric(self.levels, rows, wanted, search=search), np.zeros((len(rows), 1), "f4")
        scale, low = scale.reshape(-1, self.parts), low.reshape(-1, self.parts)
        least, most = self.scale_range
        if least < 0:
            top = np.take_along_axis(scale, np.abs(scale).argmax(axis=1, keepdims=True), axis=1)
            unit = as_half(top / np.float32(least))
        else:
            unit = as_half(scale.max(axis=1, keepdims=True) / np.float32(most))
        whole = np.clip(np.rint(_quotient(scale, unit)), least, most).astype(np.float32)
        low_unit = as_half(-low.min(axis=1, keepdims=True) / np.float32(max(1, self.minimum)))
        minima = np.clip(np.rint(_quotient(-low, low_unit)), 0, self.minimum).astype(np.float32)
        head = self.head((whole - min(0, least)).astype(np.uint8), minima.astype(np.uint8), unit, low_unit)
        offset = -(low_unit * minima) if self.minimum else None
        return Scales(scale=unit * whole, offset=offset, head=head)


def _quotient(above: Floats, below: Floats) -> Floats:
    found: Floats = np.divide(above, below, out=np.zeros_like(above), where=np.abs(below) > 1e-30)
    return found
