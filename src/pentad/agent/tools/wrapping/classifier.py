"""Classifier: answers by the words of a question, learned one example at a time."""

from __future__ import annotations

import itertools
import re
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"[^\W_]{2,}")
_WIDTH = 8192
"""Places that words are hashed to."""
_RATE, _DECAY = 0.5, 1e-5
_REPEATS = 4
"""Times that an example is learned, with so many earlier ones beside it."""
_MOST = 4096
"""Examples kept to be learned again."""
Features = npt.NDArray[np.intp]


class Classifier:
    """Multinomial logistic regression over hashed words and pairs of words, by stochastic gradients.

    Equal examples in equal order make equal classifiers. Cost: some 50 microseconds per example and
    answer; 64 KB per answer.
    """

    def __init__(self) -> None:
        self.answers: dict[str, int] = {}
        self.examples = 0
        """Learned so far."""
        self._weights: npt.NDArray[np.float64] = np.zeros((0, _WIDTH))
        self._kept: OrderedDict[str, str] = OrderedDict()

    def probabilities(self, text: str) -> list[tuple[str, float]]:
        """Each known answer with its probability, the likeliest first."""
        if not self.answers:
            return []
        chances = self._chances(_features(text))
        found = [(answer, float(chances[place])) for answer, place in self.answers.items()]
        return sorted(found, key=lambda each: (-each[1], each[0]))

    def learn(self, text: str, answer: str) -> None:
        """Takes in an example, and some earlier ones again."""
        if answer not in self.answers:
            self.answers[answer] = len(self.answers)
            self._weights = np.vstack([self._weights, np.zeros((1, _WIDTH))])
        self._kept[text] = answer
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        self.examples += 1
        known = list(self._kept.items())
        chance = np.random.default_rng(self.examples)
        for _ in range(_REPEATS):
            self._step(text, answer)
            for place in chance.integers(0, len(known), size=_REPEATS):
                self._step(*known[place])

    def written(self) -> Mapping[str, Any]:
        """The examples in order, of which `read` makes the same knowledge again."""
        return {"examples": [[text, answer] for text, answer in self._kept.items()]}

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Classifier:
        """The classifier that these examples make."""
        made = cls()
        for text, answer in written["examples"]:
            made.learn(str(text), str(answer))
        return made

    def _chances(self, features: Features) -> npt.NDArray[np.float64]:
        scores = self._weights[:, features].sum(axis=1) / np.sqrt(max(1, len(features)))
        raised = np.exp(scores - scores.max())
        chances: npt.NDArray[np.float64] = raised / raised.sum()
        return chances

    def _step(self, text: str, answer: str) -> None:
        features = _features(text)
        wrong = self._chances(features)
        wrong[self.answers[answer]] -= 1
        change = _RATE / np.sqrt(max(1, len(features))) * wrong
        self._weights[:, features] -= change[:, None] + _DECAY * self._weights[:, features]


def _features(text: str) -> Features:
    words = _WORD.findall(text.casefold())
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(words)]
    places = {zlib.crc32(each.encode()) % _WIDTH for each in (*words, *pairs)}
    return np.array(sorted(places), dtype=np.intp)
