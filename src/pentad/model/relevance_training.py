"""Training of a relevance head from questions and the texts that they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pentad.model.relevance_head import RelevanceHead

Vectors = npt.NDArray[np.float64]
_RATE, _FIRST, _SECOND, _SMALL = 3e-4, 0.9, 0.999, 1e-8
_TEMPERATURE = 0.05
_HELD_OUT = 5
"""One in so many texts is held out together with its questions."""
_LEAST_HELD_OUT = 8
"""Questions held out, below which there is nothing to go by and all steps are made."""
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """Questions, each with the text that it means, as vectors."""

    questions: Vectors
    """[Q, E]"""
    texts: Vectors
    """[T, E]"""
    right: Sequence[int]
    """For each question the place of its text."""
    words: Vectors
    """[Q, T]; what is added to the cosine besides, as in `Relevance.scores`."""


def train_head(
    lessons: Lessons, *, encoder: str, steps: int = 60, seed: int = 0, tell: Tell | None = None
) -> RelevanceHead:
    """The head with which each question is nearest to its own text among all texts.

    One text in five is held out with its questions; the steps that are made are those after which the loss on
    them is least, which may be none. Equal lessons and seeds make equal heads.

    Source: contrastive training of a retriever as in Kong et al. 2023, "TPTU-v2", section 3.2, with the loss
    of van den Oord et al. 2018, "InfoNCE", equation 4. Ours keeps the encoder as it is and learns two linear
    maps over its vectors, with every text as a negative of every question. Cost: steps x (Q + T) x E^2.
    """
    chance = np.random.default_rng(seed)
    asked = np.unique(np.asarray(lessons.right))
    chance.shuffle(asked)
    held = np.isin(lessons.right, asked[: len(asked) // _HELD_OUT])
    judged = int(held.sum()) >= _LEAST_HELD_OUT
    best = steps
    if judged:
        # What is held out is no negative either: it is as new as a tool that comes later.
        out = asked[: len(asked) // _HELD_OUT]
        texts = np.setdiff1d(np.arange(len(lessons.texts)), out)
        losses = _Maps(lessons, ~held, texts).follow(steps, _Judge(lessons, held), tell)
        best = int(np.argmin(losses))
    maps = _Maps(lessons, np.ones_like(held), np.arange(len(lessons.texts)))
    maps.follow(best, None, None)
    return RelevanceHead(
        encoder=encoder,
        question=maps.question.astype(np.float32),
        text=maps.text.astype(np.float32),
        examples=len(lessons.right),
        steps=best,
    )


def nearest_share(lessons: Lessons, head: RelevanceHead | None = None) -> float:
    """The share, 0 to 1, of the questions to which their own text is the nearest of all."""
    questions, texts = lessons.questions, lessons.texts
    if head is not None:
        questions, texts = head.questions(questions), head.texts(texts)
    scores = _unit(questions)[0] @ _unit(texts)[0].T + lessons.words
    return float((scores.argmax(axis=1) == np.asarray(lessons.right)).mean())


class _Judge:
    """The loss on questions that are not learned, among all texts."""

    def __init__(self, lessons: Lessons, held: npt.NDArray[np.bool_]) -> None:
        self._questions, self._words = lessons.questions[held], lessons.words[held]
        self._texts, self._right = lessons.texts, np.asarray(lessons.right)[held]

    def loss(self, question: Vectors, text: Vectors) -> float:
        u, _ = _unit(self._questions + self._questions @ question)
        v, _ = _unit(self._texts + self._texts @ text)
        chances = _chances(u @ v.T + self._words)
        return float(-np.log(chances[np.arange(len(u)), self._right] + _SMALL).mean())


class _Maps:
    """Both maps and their moments, and one step of Adam after another over all lessons."""

    def __init__(self, lessons: Lessons, learned: npt.NDArray[np.bool_], texts: npt.NDArray[np.intp]) -> None:
        size = lessons.texts.shape[1]
        self.question, self.text = np.zeros((size, size)), np.zeros((size, size))
        self._questions, self._texts = lessons.questions[learned], lessons.texts[texts]
        self._words = lessons.words[np.ix_(learned, texts)]
        self._right = np.searchsorted(texts, np.asarray(lessons.right)[learned])
        self._moments = [np.zeros((2, size, size)) for _ in range(2)]

    def follow(self, steps: int, judge: _Judge | None, tell: Tell | None) -> list[float]:
        """Makes the steps; the judge's loss before and after each."""
        losses = [judge.loss(self.question, self.text)] if judge else []
        for step in range(1, steps + 1):
            self._step(step)
            if judge:
                losses.append(judge.loss(self.question, self.text))
            if tell is not None:
                tell(step, steps)
        return losses

    def _step(self, step: int) -> None:
        u, long_u = _unit(self._questions + self._questions @ self.question)
        v, long_v = _unit(self._texts + self._texts @ self.text)
        wrong = _chances(u @ v.T + self._words)
        wrong[np.arange(len(u)), self._right] -= 1
        wrong /= _TEMPERATURE * len(u)
        self._move(step, 0, self.question, self._questions.T @ _through(wrong @ v, u, long_u))
        self._move(step, 1, self.text, self._texts.T @ _through(wrong.T @ u, v, long_v))

    def _move(self, step: int, which: int, values: Vectors, slope: Vectors) -> None:
        first, second = self._moments[which]
        first += (1 - _FIRST) * (slope - first)
        second += (1 - _SECOND) * (slope * slope - second)
        values -= _RATE * (first / (1 - _FIRST**step)) / (np.sqrt(second / (1 - _SECOND**step)) + _SMALL)


def _unit(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Vectors of length 1, and how long they were."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALL)
    return vectors / lengths, lengths


def _through(slope: Vectors, unit: Vectors, lengths: Vectors) -> Vectors:
    """A slope by unit vectors as one by the vectors before they were brought to length 1."""
    along: Vectors = (slope * unit).sum(axis=1, keepdims=True)
    return (slope - unit * along) / lengths


def _chances(scores: Vectors) -> Vectors:
    raised = np.exp((scores - scores.max(axis=1, keepdims=True)) / _TEMPERATURE)
    chances: Vectors = raised / raised.sum(axis=1, keepdims=True)
    return chances
