"""Subsets of passages that each show every side of what was found: one passage of each cluster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pentad.model.relevance import words as words_of

_ROUNDS = 20
"""Of k-means; it settles sooner on the few passages of a search."""


def word_vectors(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """One unit row per text: its words by how seldom they are among the texts (TF-IDF)."""
    split = [words_of(text) for text in texts]
    axis = {word: i for i, word in enumerate(sorted({word for words in split for word in words}))}
    counts = np.zeros((len(texts), max(1, len(axis))))
    for row, words in enumerate(split):
        for word in words:
            counts[row, axis[word]] += 1
    weights = counts * np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0)))
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    made: npt.NDArray[np.float64] = weights / np.where(lengths > 0, lengths, 1)
    return made


def clusters(vectors: npt.NDArray[np.float64], count: int) -> list[list[int]]:
    """The places of the rows in at most `count` groups of near ones (k-means); the same for the same rows.

    The first centre is the first row, each next one the row farthest from those before. Groups come in the
    order of their first rows, and so do the rows of a group. Empty groups are left out.
    """
    centres = [vectors[0]]
    while len(centres) < min(count, len(vectors)):
        apart = np.min([np.linalg.norm(vectors - centre, axis=1) for centre in centres], axis=0)
        centres.append(vectors[int(np.argmax(apart))])
    place = np.zeros(len(vectors), int)
    for _ in range(_ROUNDS):
        apart = np.stack([np.linalg.norm(vectors - centre, axis=1) for centre in centres])
        nearest = np.argmin(apart, axis=0)
        if _ and np.array_equal(nearest, place):
            break
        place = nearest
        centres = [
            vectors[place == i].mean(axis=0) if (place == i).any() else centre
            for i, centre in enumerate(centres)
        ]
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(place):
        groups.setdefault(int(group), []).append(row)
    return list(groups.values())


def subsets(groups: Sequence[Sequence[int]], count: int) -> list[tuple[int, ...]]:
    """At most `count` different subsets with one row of every group, in the order of the rows.

    The first has the first row of each group, the next the second, and so on; a group that has no more
    begins again. So each row is in some subset before any is shown twice in a group.
    """
    found: dict[tuple[int, ...], None] = {}
    for turn in range(count):
        found[tuple(sorted(group[turn % len(group)] for group in groups))] = None
    return list(found)
