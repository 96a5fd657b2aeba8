"""Neighbours: how often a model was right on the recorded questions most like this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from pentad.errors import InvalidRequest
from pentad.model.routing.success import Array, Chance, Lessons, Question
from pentad.ranges import in_range

_SIZES = (5, 10, 20, 40, 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The share that was right among the k questions with the nearest vectors.

    Without `k` it is the one whose shares are nearest to the outcomes, in squares, when each recorded
    question is judged by the others.
    Cost: one product with the recorded vectors, N x E.

    Source: the baseline of RouterBench (Hu et al. 2024, section 4), which LLMRouterBench finds that few
    learned routers beat.
    """

    k: int | None = None
    """How many; absent: chosen on the outcomes themselves."""

    name: ClassVar[str] = "knn"

    @property
    def fitted(self) -> type[NearOutcomes]:
        return NearOutcomes

    def __post_init__(self) -> None:
        in_range("k", self.k, least=1)

    def fit(self, lessons: Lessons) -> NearOutcomes:
        """Keeps vectors and outcomes."""
        vectors = vectors_of(lessons)
        k = self.k
        if k is None:
            near = vectors @ vectors.T
            np.fill_diagonal(near, -np.inf)
            order = np.argsort(-near, axis=1, kind="stable")[:, : max(_SIZES)]
            errors = {
                size: float(np.nanmean((shares(lessons.right, order[:, :size])[0] - lessons.right) ** 2))
                for size in _SIZES
            }
            k = min(errors, key=lambda size: errors[size])
        return NearOutcomes(models=lessons.models, vectors=vectors, right=lessons.right, k=k)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearOutcomes:
    """Recorded vectors [N, E] and outcomes [N, M]."""

    models: tuple[str, ...]
    vectors: Array
    right: Array
    k: int

    kind: ClassVar[str] = "knn"

    def chances(self, questions: Sequence[Question]) -> list[Mapping[str, Chance]]:
        """See SuccessEstimate; a question without a vector gets the share over all."""
        found: list[Mapping[str, Chance]] = []
        for question in questions:
            places = np.arange(len(self.right))
            if question.vector is not None:
                near = self.vectors @ np.asarray(question.vector)
                places = np.argsort(-near, kind="stable")[: self.k]
            found_right, counts = shares(self.right, places[None])
            found.append(
                {
                    name: Chance.of(float(found_right[0, i]), float(counts[0, i]))
                    for i, name in enumerate(self.models)
                }
            )
        return found

    def arrays(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """See StoredEstimate."""
        return {
            "models": np.array(self.models),
            "vectors": self.vectors.astype(np.float32),
            "right": self.right.astype(np.float32),
            "k": np.array(self.k),
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See StoredEstimate."""
        return cls(
            models=tuple(str(one) for one in arrays["models"]),
            vectors=arrays["vectors"].astype(np.float64),
            right=arrays["right"].astype(np.float64),
            k=int(arrays["k"]),
        )


def vectors_of(lessons: Lessons) -> Array:
    """[N, E]. Raises InvalidRequest where questions have none."""
    rows = [question.vector for question in lessons.questions]
    if not rows or any(row is None for row in rows):
        raise InvalidRequest(
            "these outcomes have questions without vectors",
            hint="set `embedding_model`, so that they can be embedded, or leave empty prompts out",
            param="embedding_model",
        )
    return np.array(rows, dtype=np.float64)


def shares(right: Array, places: npt.NDArray[np.intp]) -> tuple[Array, Array]:
    """[B, M] shares of what was right at the places [B, k], with one success and one failure added, which
    keep few neighbours from being sure; and how many outcomes there were."""
    chosen = right[places]
    counts = (~np.isnan(chosen)).sum(axis=1).astype(np.float64)
    shares: Array = (np.nansum(chosen, axis=1) + 1) / (counts + 2)
    return shares, counts
