"""Kernel: a calibrated regression over a question's vector, its words and its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from pentad.model.routing.calibration import Platt
from pentad.model.routing.neighbours import vectors_of
from pentad.model.routing.success import Array, Chance, Lessons, Question
from pentad.model.routing.text_features import count_rows, word_rows
from pentad.ranges import in_range

_LEAST = 20
_JUDGED = 600
"""Questions on which kernel and noise are chosen; the weights are of all."""
_NOISES = (0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """How two questions are compared: nearness of vectors, shared words, likeness of kind."""

    sharpness: float = 1.0
    """How fast nearness falls with the distance of vectors."""
    words: float = 0.3
    counts: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Questions as the kernel compares them."""

    vectors: Array
    """[N, E]"""
    words: Array
    """[N, W]"""
    counts: Array
    """[N, C], each of mean 0 and deviation 1 over the recorded questions."""

    def at(self, places: npt.NDArray[np.intp]) -> Features:
        return Features(vectors=self.vectors[places], words=self.words[places], counts=self.counts[places])


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRegression:
    """Kernel ridge regression of outcomes, turned into probabilities that keep what they say.

    Kernel and noise are those that predict each recorded question best by the others, in squares; so do the
    scores that Platt's two numbers are fitted on, which no question's own outcome has touched. The evidence
    of a chance is that of a mean whose variance is the regression's at this question.
    Cost: fitting solves N x N systems, N at most `most`; a question costs N x (E + N) products.

    Source: regularized least squares with its closed leave-one-out form (Rifkin & Lippert 2007, section 3);
    Platt 1999. Our difference from learned routers of the kind of RouteLLM (Ong et al. 2024): words and kind
    of the question stand beside its vector, and every probability is calibrated per model.
    """

    most: int = 2000
    """Recorded questions that are learned from, the latest ones."""

    name: ClassVar[str] = "kernel"

    @property
    def fitted(self) -> type[Regressed]:
        return Regressed

    def __post_init__(self) -> None:
        in_range("most", self.most, least=_LEAST)

    def fit(self, lessons: Lessons) -> Regressed:
        """The estimate. Raises InvalidRequest with fewer than 20 outcomes of a model."""
        lessons = lessons.latest(self.most, least=_LEAST)
        texts = [question.text for question in lessons.questions]
        counts = count_rows(texts)
        middle, spread = counts.mean(axis=0), np.maximum(counts.std(axis=0), 1e-6)
        known = Features(
            vectors=vectors_of(lessons), words=word_rows(texts), counts=(counts - middle) / spread
        )
        parts, noise = _chosen(known, lessons.right)
        near = nearness(known, known, parts)
        return Regressed(
            models=lessons.models,
            known=known,
            parts=parts,
            scale=np.stack([middle, spread]),
            solved=tuple(_solved(near, column, noise) for column in lessons.right.T),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """One model's regression over the questions [n] that it was asked."""

    places: npt.NDArray[np.intp]
    mean: float
    weights: Array
    """[n]"""
    inverse: Array
    """[n, n] of the kernel with its noise."""
    platt: Platt


@dataclass(frozen=True, slots=True, kw_only=True)
class Regressed:
    """What was learned: the recorded questions and each model's weights on them."""

    models: tuple[str, ...]
    known: Features
    parts: Parts
    scale: Array
    """[2, C]: mean and deviation of the counts."""
    solved: tuple[Solved, ...]

    kind: ClassVar[str] = "kernel"

    def chances(self, questions: Sequence[Question]) -> list[Mapping[str, Chance]]:
        """See SuccessEstimate; a question without a vector gets each model's mean."""
        if not questions:
            return []
        texts = [question.text for question in questions]
        size = self.known.vectors.shape[1]
        asked = Features(
            vectors=np.array([q.vector or (0.0,) * size for q in questions]),
            words=word_rows(texts),
            counts=(count_rows(texts) - self.scale[0]) / self.scale[1],
        )
        near = nearness(asked, self.known, self.parts)
        near[[q.vector is None for q in questions]] = 0.0
        found: list[dict[str, Chance]] = [{} for _ in questions]
        for name, one in zip(self.models, self.solved, strict=True):
            here = near[:, one.places]
            chance = one.platt(one.mean + here @ one.weights)
            spent = ((here @ one.inverse) ** 2).sum(axis=1) + 1 / len(one.places)
            for row, p, variance in zip(found, chance.tolist(), spent.tolist(), strict=True):
                row[name] = Chance.of(p, 1 / variance)
        return list(found)

    def arrays(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """See StoredEstimate."""
        kept: dict[str, npt.NDArray[np.generic]] = {
            "models": np.array(self.models),
            "vectors": self.known.vectors.astype(np.float32),
            "words": self.known.words.astype(np.float32),
            "counts": self.known.counts,
            "scale": self.scale,
            "parts": np.array([self.parts.sharpness, self.parts.words, self.parts.counts]),
        }
        for i, one in enumerate(self.solved):
            kept[f"places_{i}"] = one.places
            kept[f"weights_{i}"] = one.weights
            kept[f"inverse_{i}"] = one.inverse.astype(np.float32)
            kept[f"numbers_{i}"] = np.array([one.mean, one.platt.slope, one.platt.offset])
        return kept

    @classmethod
    def restored(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See StoredEstimate."""
        models = tuple(str(one) for one in arrays["models"])
        sharpness, words, counts = arrays["parts"].tolist()
        solved = []
        for i in range(len(models)):
            mean, slope, offset = arrays[f"numbers_{i}"].tolist()
            solved.append(
                Solved(
                    places=arrays[f"places_{i}"],
                    mean=mean,
                    weights=arrays[f"weights_{i}"],
                    inverse=arrays[f"inverse_{i}"].astype(np.float64),
                    platt=Platt(slope=slope, offset=offset),
                )
            )
        return cls(
            models=models,
            known=Features(
                vectors=arrays["vectors"].astype(np.float64),
                words=arrays["words"].astype(np.float64),
                counts=arrays["counts"],
            ),
            parts=Parts(sharpness=sharpness, words=words, counts=counts),
            scale=arrays["scale"],
            solved=tuple(solved),
        )


def nearness(left: Features, right: Features, parts: Parts) -> Array:
    """[B, N], 1 between equal questions; positive definite, as a weighted mean of three kernels."""
    found = np.exp(parts.sharpness * (left.vectors @ right.vectors.T - 1))
    if parts.words:
        found = found + parts.words * (left.words @ right.words.T)
    if parts.counts:
        squares = (left.counts**2).sum(axis=1)[:, None] + (right.counts**2).sum(axis=1)[None]
        apart = np.maximum(0.0, squares - 2 * left.counts @ right.counts.T)
        found = found + parts.counts * np.exp(-apart / (2 * left.counts.shape[1]))
    whole: Array = found / (1 + parts.words + parts.counts)
    return whole


def _chosen(known: Features, right: Array) -> tuple[Parts, float]:
    """Kernel and noise with the least squares when each question is predicted by the others."""
    places = np.random.default_rng(0).permutation(len(right))[:_JUDGED]
    few, outcomes = known.at(places), right[places]
    filled = np.where(np.isnan(outcomes), np.nanmean(right, axis=0), outcomes)
    best, least = (Parts(), _NOISES[0]), np.inf
    for parts in (
        Parts(sharpness=s, words=w, counts=c) for s in (1.0, 4.0) for w in (0.0, 0.5) for c in (0.0, 0.5)
    ):
        values, vectors = np.linalg.eigh(nearness(few, few, parts))
        turned = vectors.T @ (filled - filled.mean(axis=0))
        for noise in _NOISES:
            shrink = 1 / (np.maximum(values, 0) + noise)
            weights = vectors @ (shrink[:, None] * turned)
            apart = weights / ((vectors**2) @ shrink)[:, None]
            error = float((apart[~np.isnan(outcomes)] ** 2).mean())
            if error < least:
                best, least = (parts, noise), error
    return best


def _solved(near: Array, column: Array, noise: float) -> Solved:
    places = np.flatnonzero(~np.isnan(column))
    right = column[places]
    mean = float(right.mean())
    noisy: Array = near[np.ix_(places, places)] + noise * np.eye(len(places))
    inverse = np.linalg.inv(noisy).astype(np.float64)
    weights = inverse @ (right - mean)
    others = right - weights / np.diag(inverse)  # of each question, by all the others
    return Solved(places=places, mean=mean, weights=weights, inverse=inverse, platt=Platt.fit(others, right))
