"""Clipped groups: a least and a largest number of each, as shares of what it reaches, and their gradients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from pentad.execution.formats.base import Floats

_TINY = np.float32(1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipped:
    """Of the groups of a matrix, in order: the shares of their least and largest number that codes reach."""

    low: Floats
    """[groups, 1]"""
    high: Floats
    """[groups, 1]"""

    @classmethod
    def whole(cls, groups: int) -> Self:
        """Nothing is clipped."""
        ones = np.ones((groups, 1), np.float32)
        return cls(low=ones, high=ones)

    def line(self, blocks: Floats, most: int) -> tuple[Floats, Floats]:
        """Scale and offset [groups, 1] of codes from 0 to `most`, for numbers [groups, elements]."""
        low = self.low * np.minimum(blocks.min(axis=1, keepdims=True), 0)
        high = self.high * np.maximum(blocks.max(axis=1, keepdims=True), 0)
        return np.maximum(high - low, _TINY) / np.float32(most), low

    def gradient(
        self, matrix: Floats, columns: Floats, gram: Floats, elements: int, most: int
    ) -> tuple[float, Floats, tuple[Floats, Floats]]:
        """The squared error of what a scaled matrix gives once rounded, and its slopes.

        Rounding counts as passing gradients on, as in quantization-aware training.

        Args:
            matrix: [out, in], not scaled.
            columns: the factors of its columns, [in].

        Returns:
            the error, its slope by the logarithm of each column's factor [in], and by `low` and `high`.
        """
        scaled = matrix * columns
        blocks = scaled.reshape(-1, elements)
        step, low = self.line(blocks, most)
        place = (blocks - low) / step
        codes = np.clip(np.rint(place), 0, most)
        numbers = (codes * step + low).reshape(matrix.shape)
        change = numbers / columns - matrix
        pulled = change @ gram
        error = float(np.einsum("ij,ij->", pulled, change))
        by_number = ((2 * pulled) / columns).reshape(-1, elements)

        inside = (place >= 0) & (place <= most)
        by_step = (by_number * np.where(inside, codes - place, codes)).sum(axis=1, keepdims=True)
        by_low = (by_number * ~inside).sum(axis=1, keepdims=True) - by_step / most
        by_high = by_step / most
        by_scaled = np.where(inside, by_number, 0)
        ends = ((blocks.argmin(axis=1), by_low * self.low), (blocks.argmax(axis=1), by_high * self.high))
        for at, slope in ends:  # a group's ends move with the number that makes them
            by_scaled[np.arange(len(blocks)), at] += slope[:, 0]
        by_scaled = by_scaled.reshape(matrix.shape)
        by_column = (by_scaled * scaled).sum(axis=0) - (2 * pulled * numbers / columns).sum(axis=0)
        least = np.minimum(blocks.min(axis=1, keepdims=True), 0)
        largest = np.maximum(blocks.max(axis=1, keepdims=True), 0)
        return error, by_column, (by_low * least, by_high * largest)


@dataclass(slots=True)
class Adam:
    """Steps of equal size for parameters by name (Kingma and Ba, 2015)."""

    rate: float
    _state: dict[str, tuple[Floats, Floats, int]] = field(default_factory=dict)

    def moved(self, name: str, values: Floats, slope: Floats) -> Floats:
        """The values after one step."""
        first, second, count = self._state.get(name, (np.zeros_like(slope), np.zeros_like(slope), 0))
        first = np.float32(0.9) * first + np.float32(0.1) * slope
        second = np.float32(0.99) * second + np.float32(0.01) * slope * slope
        count += 1
        self._state[name] = (first, second, count)
        straight = first / (1 - 0.9**count)
        size = np.sqrt(second / (1 - 0.99**count)) + np.float32(1e-20)
        found: Floats = (values - self.rate * straight / size).astype(np.float32)
        return found
