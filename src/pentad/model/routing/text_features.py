"""What a question looks like beside its meaning: its words, and some counts that tell of its kind."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from pentad.model.routing.success import Array

WORD_PLACES: Final = 1024
_WORD = re.compile(r"[^\W_]+")
_SYMBOLS = frozenset("+-*/=<>^$\\{}()[]|%")
_TURNS = frozenset({"not", "except", "false", "never", "least", "incorrect", "no", "neither"})
"""Words that turn a question round, and models about."""


def word_rows(texts: Sequence[str]) -> Array:
    """[B, WORD_PLACES] of how often words occur, damped by logarithm, hashed to places; of length 1."""
    rows = np.zeros((len(texts), WORD_PLACES))
    for row, text in zip(rows, texts, strict=True):
        for word in _WORD.findall(text.lower()):
            row[zlib.crc32(word.encode()) % WORD_PLACES] += 1
    rows = np.log1p(rows)
    return _unit(rows)


def count_rows(texts: Sequence[str]) -> Array:
    """[B, 8] of counts and shares: length, lines, digits, symbols, long words, words that turn, marks."""
    return np.array([_counts(text) for text in texts])


def _counts(text: str) -> list[float]:
    words = _WORD.findall(text.lower())
    chars, many = max(1, len(text)), max(1, len(words))
    return [
        float(np.log1p(len(text))),
        float(np.log1p(text.count("\n"))),
        sum(c.isdigit() for c in text) / chars,
        sum(c in _SYMBOLS for c in text) / chars,
        sum(len(word) > 8 for word in words) / many,
        min(3.0, sum(word in _TURNS for word in words)),
        float("?" in text),
        len(set(words)) / many,
    ]


def _unit(rows: Array) -> Array:
    found: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
