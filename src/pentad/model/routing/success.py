"""What is asked, and how probable it is that each model answers it right: the interface of estimators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from pentad.errors import InvalidRequest
from pentad.types import Request

Array = npt.NDArray[np.float64]
Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""One unit vector per text."""

_Z: Final = 1.96
LONGEST_CHARS: Final = 900
"""Of a question that is looked at; some two hundred tokens, which every encoder takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """How probable a right answer is, 0 to 1, and how sure that is."""

    probability: float
    low: float
    """Of the 95% interval of the probability itself, by the evidence near the question."""
    high: float
    evidence: float
    """How many recorded outcomes it is worth."""

    @classmethod
    def of(cls, probability: float, evidence: float) -> Self:
        """With Wilson's interval for so much evidence; without any the interval is all of 0 to 1."""
        p, n = min(1.0, max(0.0, probability)), max(0.0, evidence)
        if n == 0:
            return cls(probability=p, low=0.0, high=1.0, evidence=0.0)
        middle = (p + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
        half = _Z / (1 + _Z * _Z / n) * math.sqrt(p * (1 - p) / n + _Z * _Z / (4 * n * n))
        return cls(probability=p, low=max(0.0, middle - half), high=min(1.0, middle + half), evidence=n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a request asks, as estimators see it."""

    text: str
    vector: tuple[float, ...] | None = None
    """Unit vector of the text; None where nobody embeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """Recorded outcomes [N, M] of M models on N questions: 1 right, 0 wrong, between them in part."""

    models: tuple[str, ...]
    questions: Sequence[Question]
    right: Array
    """[N, M]; NaN where that model was not asked."""

    def latest(self, most: int, *, least: int) -> Lessons:
        """Those of the latest `most` questions. Raises InvalidRequest with fewer than `least` of a model."""
        kept = slice(max(0, len(self.questions) - most), None)
        found = replace(self, questions=self.questions[kept], right=self.right[kept])
        for name, column in zip(found.models, found.right.T, strict=True):
            if (told := int((~np.isnan(column)).sum())) < least:
                raise InvalidRequest(
                    f"{told} outcomes of model {name!r} are too few to learn from",
                    hint=f"record at least {least} of each model, or choose the estimator knn",
                    param="outcomes",
                )
        return found


class SuccessEstimate(Protocol):
    """Says how probable a right answer is. Equal questions get equal chances; nothing is drawn."""

    @property
    def models(self) -> tuple[str, ...]:
        """Whom it knows; of others it says nothing."""
        ...

    def chances(self, questions: Sequence[Question]) -> list[Mapping[str, Chance]]:
        """For each question the chance of every known model."""
        ...


class StoredEstimate(SuccessEstimate, Protocol):
    """One that `estimate_file` writes and reads."""

    kind: ClassVar[str]

    def arrays(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """All that `restored` needs."""
        ...

    @classmethod
    def restored(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Self:
        """What `arrays` gave. Raises KeyError or ValueError for anything else."""
        ...


class Estimator(Protocol):
    """Learns an estimate from recorded outcomes; registered under `success`."""

    @property
    def fitted(self) -> type[StoredEstimate]:
        """What `fit` returns."""
        ...

    def fit(self, lessons: Lessons) -> StoredEstimate:
        """The estimate. Raises InvalidRequest where there is too little to learn from."""
        ...


def text_of(request: Request) -> str:
    """What the request asks: the last thing that its user says, else its text; cut to what encoders take."""
    if request.messages:
        said = [message.content for message in request.messages if message.role == "user"]
        text = said[-1] if said else request.messages[-1].content
    else:
        text = request.text or ""
    return text.strip()[:LONGEST_CHARS]
