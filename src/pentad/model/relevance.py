"""Relevance: how near texts are to what somebody wants, by an encoder's vectors or by shared words."""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import numpy.typing as npt

from pentad.errors import Incompatible
from pentad.model.relevance_head import RelevanceHead
from pentad.model.relevance_training import Lessons
from pentad.model.terms import terms

Vector = Sequence[float]
Embed = Callable[[Sequence[str]], Awaitable[Sequence[Vector]]]
"""One vector per text."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[^\W_]+")
_WORDS_SHARE = 0.3
"""Weight of shared words beside the cosine's 1, as in long-term memory."""
_AT_ONCE = 32
"""Texts per call of the encoder."""


class Relevance:
    """Scores texts against cues. Vectors of texts are kept, so that a text is embedded once.

    Args:
        embed: a local encoder; None scores by words alone.
        encoder: its name, for records.
        most_kept: vectors kept, those used longest ago go first; some kilobytes each.
    """

    def __init__(self, embed: Embed | None, *, encoder: str = "", most_kept: int = 4096) -> None:
        self._embed = embed
        self._encoder = encoder
        self._most_kept = most_kept
        self._kept: OrderedDict[str, Vector] = OrderedDict()

    @property
    def method(self) -> str:
        """What scores come of: `embedding NAME`, with words beside it, or `words`."""
        return f"embedding {self._encoder}" if self._embed is not None else "words"

    async def scores(
        self, cues: Sequence[str], texts: Sequence[str], *, head: RelevanceHead | None = None
    ) -> list[float]:
        """For each text the score, 0 to 1, by the cue that it is nearest to.

        Where there is an encoder the weighted mean of the vectors' cosine and `shared_words`, since
        small encoders miss names and rare words; else `shared_words` alone. Equal input gives equal
        scores. Cost: one embedding of each text that is not kept, and of each cue.

        Args:
            head: what was learned about these texts; vectors are compared as it maps them.

        Raises what the encoder raises; Incompatible for a head that was trained on another encoder.
        """
        if head is not None:
            self._check(head)
        cues = [cue for cue in cues if cue.strip()]
        if not cues or not texts:
            return [0.0] * len(texts)
        if self._embed is None:
            by_cue = [shared_words(cue, texts) for cue in cues]
        else:
            wanted = await self._vectors(cues, self._embed)
            found = await self._vectors(texts, self._embed)
            by_cue = [
                [(near + _WORDS_SHARE * same) / (1 + _WORDS_SHARE) for near, same in zip(*row, strict=True)]
                for row in zip(
                    _cosines(wanted, found, head), [shared_words(cue, texts) for cue in cues], strict=True
                )
            ]
        return [max(column) for column in zip(*by_cue, strict=True)]

    async def lessons(self, questions: Sequence[str], texts: Sequence[str], right: Sequence[int]) -> Lessons:
        """What a head learns from: questions and texts as vectors, with the share of words beside.

        Raises Incompatible where there is no encoder, and what the encoder raises.
        """
        if self._embed is None:
            raise _no_encoder("training needs an encoder, and none is served")
        asked, told = await self._vectors(questions, self._embed), await self._vectors(texts, self._embed)
        size = max(map(len, (*asked, *told)), default=0)
        return Lessons(
            questions=_units(asked, size),
            texts=_units(told, size),
            right=tuple(right),
            words=np.array([[_WORDS_SHARE * same for same in shared_words(q, texts)] for q in questions]),
        )

    @property
    def encoder(self) -> str:
        """The encoder's name; empty where words alone are compared."""
        return self._encoder if self._embed is not None else ""

    def _check(self, head: RelevanceHead) -> None:
        if self._embed is None:
            raise _no_encoder(f"the relevance head was trained on {head.encoder!r}, and no encoder is served")
        if head.encoder != self._encoder:
            raise Incompatible(
                f"the relevance head was trained on {head.encoder!r}; the encoder here is {self._encoder!r}",
                hint=f"serve {head.encoder!r} first of the embedding models, or train a head on this one",
            )

    async def _vectors(self, texts: Sequence[str], embed: Embed) -> list[Vector]:
        missing = [text for text in dict.fromkeys(texts) if text.strip() and text not in self._kept]
        found: dict[str, Vector] = {}
        for start in range(0, len(missing), _AT_ONCE):
            batch = missing[start : start + _AT_ONCE]
            found |= dict(zip(batch, await embed(batch), strict=True))
        vectors = [found[text] if text in found else self._kept.get(text, ()) for text in texts]
        for text, vector in zip(texts, vectors, strict=True):
            self._kept[text] = vector
            self._kept.move_to_end(text)
        while len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)
        return vectors


def shared_words(cue: str, texts: Sequence[str]) -> list[float]:
    """For each text the share, 0 to 1, of the cue's words that it has; a word in few texts weighs more.

    Source: inverse document frequency as in BM25 (Robertson and Zaragoza 2009, section 3.1). Ours
    leaves the frequency within a text out, since the texts here are short, and divides by the whole
    cue, so that scores of different cues compare. Words are compared by their stem (`_stem`).
    """
    found = [set(words(text)) for text in texts]
    spread = Counter(word for each in found for word in each)
    weights = {
        word: math.log(1 + (len(texts) - spread[word] + 0.5) / (spread[word] + 0.5)) for word in words(cue)
    }
    whole = sum(weights.values())
    return [sum(w for word, w in weights.items() if word in each) / whole if whole else 0.0 for each in found]


def words(text: str) -> list[str]:
    """The words of a text for comparison: lower case, stemmed, names in code parted, in order, each once."""
    return list(dict.fromkeys(_stem(word.lower()) for word in _WORD.findall(_CAMEL.sub(" ", terms(text)))))


def _stem(word: str) -> str:
    """A word without the commonest English endings; crude, and the same for both sides."""
    for ending, least in (("ing", 6), ("ies", 5), ("ed", 5), ("es", 5), ("s", 4)):
        if len(word) >= least and word.endswith(ending) and not word.endswith("ss"):
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word.removesuffix("e") if len(word) >= 5 else word


def _no_encoder(problem: str) -> Incompatible:
    return Incompatible(problem, hint="serve an embedding model, e.g. minilm")


def _cosines(
    cues: Sequence[Vector], texts: Sequence[Vector], head: RelevanceHead | None
) -> list[list[float]]:
    """Row per cue, column per text, 0 to 1; 0 where there is no vector, or it is 0."""
    size = max(map(len, (*cues, *texts)), default=0)
    a, b = (_units(vectors, size) for vectors in (cues, texts))
    if head is not None:
        a, b = _unit_rows(head.questions(a)), _unit_rows(head.texts(b))
    return [[min(1.0, max(0.0, float(x))) for x in row] for row in a @ b.T]


def _units(vectors: Sequence[Vector], size: int) -> npt.NDArray[np.float64]:
    found = np.zeros((len(vectors), size))
    for row, vector in zip(found, vectors, strict=True):
        row[: len(vector)] = vector
    return _unit_rows(found)


def _unit_rows(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
