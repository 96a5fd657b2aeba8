"""Mixed: the most similar recorded questions by meaning, words and kind, with calibrated shares."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt

from pentad.model.routing.calibration import Platt, logit
from pentad.model.routing.neighbours import shares, vectors_of
from pentad.model.routing.success import Array, Chance, Lessons, Question
from pentad.model.routing.text_features import count_rows, word_rows
from pentad.ranges import in_range

_LEAST: Final = 20
_SIZES: Final = (10, 20, 40, 60, 100)
_WORDS: Final = (0.0, 0.3, 0.6, 1.0)
_COUNTS: Final = (0.0, 0.1, 0.2, 0.4)
_VIEWS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """The share that was right among the k most similar questions, turned into a calibrated probability.

    Similar is the cosine of the vectors, plus that of the words, rare ones counting more, plus a likeness of
    counts (length, digits, symbols ...). Of all weights of these, and all k, the five views that tell best
    which model is better on each recorded question by the others, in squares, are averaged. Platt's numbers
    are fitted on the same averages, which no question's own outcome has touched.
    Cost: fitting compares all pairs, N x N of at most `most`; a question N x (E + words) products.

    Source: nearest neighbours as in RouterBench (Hu et al. 2024, section 4). Our difference: words and kind
    beside the vector, all weights learned, and probabilities that keep what they say (Platt 1999).
    """

    most: int = 4000
    """Recorded questions that are learned from, the latest ones."""

    name: ClassVar[str] = "mixed"

    def __post_init__(self) -> None:
        in_range("most", self.most, least=_LEAST)

    @property
    def fitted(self) -> type[MixedOutcomes]:
        return MixedOutcomes

    def fit(self, lessons: Lessons) -> MixedOutcomes:
        """The estimate. Raises InvalidRequest with fewer than 20 outcomes of a model."""
        lessons = lessons.latest(self.most, least=_LEAST)
        texts = [question.text for question in lessons.questions]
        words, counts = word_rows(texts), count_rows(texts)
        rarity = np.log((1 + len(texts)) / (1 + (words > 0).sum(axis=0)))
        plain = MixedOutcomes(
            models=lessons.models,
            right=lessons.right,
            vectors=vectors_of(lessons),
            words=_unit(words * rarity),
            counts=counts,
            rarity=rarity,
            scale=np.stack([counts.mean(axis=0), np.maximum(counts.std(axis=0), 1e-6)]),
            views=(),
            platts=(),
        )
        return _fitted(plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedOutcomes:
    """Recorded questions, as they are compared, and outcomes [N, M]."""

    models: tuple[str, ...]
    right: Array
    vectors: Array
    """[N, E]"""
    words: Array
    """[N, W], rare words weighing more, of length 1."""
    counts: Array
    """[N, C]"""
    rarity: Array
    """[W]"""
    scale: Array
    """[2, C]: mean and deviation of the counts."""
    views: tuple[tuple[float, float, int], ...]
    """Weights of words and counts beside the vectors' 1, and k, of each view."""
    platts: tuple[Platt, ...]

    kind: ClassVar[str] = "mixed"

    def chances(self, questions: Sequence[Question]) -> list[Mapping[str, Chance]]:
        """See SuccessEstimate; a question without a vector goes by its words and its kind."""
        if not questions:
            return []
        texts = [question.text for question in questions]
        size = self.vectors.shape[1]
        vectors = np.array([question.vector or (0.0,) * size for question in questions])
        near, (words, kinds) = vectors @ self.vectors.T, self._likeness(texts)
        seen = []
        for of_words, of_counts, k in self.views:
            order = _nearest(near + of_words * words + of_counts * kinds, k)
            seen.append(shares(self.right, order))
        share, told = (np.mean(part, axis=0) for part in zip(*seen, strict=True))
        found: list[dict[str, Chance]] = [{} for _ in questions]
        for i, name in enumerate(self.models):
            chance = self.platts[i](logit(share[:, i]))
            for row, p, count in zip(found, chance.tolist(), told[:, i].tolist(), strict=True):
                row[name] = Chance.of(p, count)
        return list(found)

    def _likeness(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """[B, N] of words and of counts."""
        words = _unit(word_rows(texts) * self.rarity) @ self.words.T
        return words, kindred(self.scaled(count_rows(texts)), self.scaled(self.counts))

    def scaled(self, counts: Array) -> Array:
        """Counts in deviations from the recorded ones' mean."""
        scaled: Array = (counts - self.scale[0]) / self.scale[1]
        return scaled

    def arrays(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """See StoredEstimate."""
        return {
            "models": np.array(self.models),
            "right": self.right.astype(np.float32),
            "vectors": self.vectors.astype(np.float32),
            "words": self.words.astype(np.float32),
            "counts": self.counts,
            "rarity": self.rarity,
            "scale": self.scale,
            "views": np.array(self.views),
            "platts": np.array([[one.slope, one.offset] for one in self.platts]),
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See StoredEstimate."""
        return cls(
            models=tuple(str(one) for one in arrays["models"]),
            right=arrays["right"].astype(np.float64),
            vectors=arrays["vectors"].astype(np.float64),
            words=arrays["words"].astype(np.float64),
            counts=arrays["counts"],
            rarity=arrays["rarity"],
            scale=arrays["scale"],
            views=tuple((words, counts, int(k)) for words, counts, k in arrays["views"].tolist()),
            platts=tuple(Platt(slope=slope, offset=offset) for slope, offset in arrays["platts"].tolist()),
        )


def kindred(left: Array, right: Array) -> Array:
    """[B, N], 1 between equal counts, falling with their distance."""
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None]
    apart = np.maximum(0.0, squares - 2 * left @ right.T)
    found: Array = np.exp(-apart / (2 * left.shape[1]))
    return found


def _fitted(plain: MixedOutcomes) -> MixedOutcomes:
    """The views and Platt's numbers that the recorded questions choose, each judged by the others."""
    scaled = plain.scaled(plain.counts)
    near, words = plain.vectors @ plain.vectors.T, plain.words @ plain.words.T
    kinds, wanted = kindred(scaled, scaled), _apart(plain.right)
    tried: list[tuple[float, tuple[float, float, int], Array]] = []
    for of_words, of_counts in itertools.product(_WORDS, _COUNTS):
        likeness = near + of_words * words + of_counts * kinds
        np.fill_diagonal(likeness, -np.inf)
        order = _nearest(likeness, max(_SIZES))
        for k in _SIZES:
            share, _ = shares(plain.right, order[:, :k])
            error = float(np.nanmean((_apart(share) - wanted) ** 2))
            tried.append((error, (of_words, of_counts, k), share))
    best = sorted(tried, key=lambda one: one[0])[:_VIEWS]
    said: Array = np.mean([share for _, _, share in best], axis=0)
    platts = []
    for column, right in zip(said.T, plain.right.T, strict=True):
        known = ~np.isnan(right)
        platts.append(Platt.fit(logit(column[known]), right[known]))
    return replace(plain, views=tuple(view for _, view, _ in best), platts=tuple(platts))


def _nearest(likeness: Array, most: int) -> npt.NDArray[np.intp]:
    """[N, most] places by falling likeness."""
    most = min(most, likeness.shape[1] - 1)
    some = np.argpartition(-likeness, most - 1, axis=1)[:, :most]
    order = np.argsort(-np.take_along_axis(likeness, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def _apart(right: Array) -> Array:
    """How far each model is from the mean of its row: what decides who serves. One model stays as it is."""
    if right.shape[1] == 1 or np.isnan(right).any(axis=1).all():
        return right
    found: Array = right - right.mean(axis=1, keepdims=True)
    return found


def _unit(rows: Array) -> Array:
    found: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
