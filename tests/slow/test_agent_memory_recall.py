"""Recall of the turns that tell what is asked, in long conversations, beside BM25 and plain vectors."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Iterator, Sequence

import bm25s
import numpy as np
import numpy.typing as npt
import pytest

from agent_support import run
from evidence.plugin import Measure
from pentad.agent.memory.base import Item, Scope
from pentad.agent.memory.store import LongTerm
from pentad.model.embedding import LocalEmbedder
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend
from told_stories import TURNS, Question, Told, told

pytestmark = pytest.mark.slow
SCOPE = Scope(tenant="t")
NOW = 1_700_000_000.0
MOST = 10


@dataclasses.dataclass(frozen=True)
class Given:
    """What a search is given: the conversations, and the vectors of turns and questions."""

    told: Told
    turns: npt.NDArray[np.float32]
    questions: npt.NDArray[np.float32]


class _Vectors:
    """An embedder that computed all before, so that the search alone is timed."""

    dimensions = 384

    def __init__(self, given: Given) -> None:
        texts = [*given.told.turns, *(q.text for q in given.told.questions)]
        vectors = np.concatenate([given.turns, given.questions]).tolist()
        self._known = dict(zip(texts, vectors, strict=True))

    def embed_counted(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        return [self._known[text] for text in texts], 0


@pytest.fixture(scope="module")
def given(minilm_path: pathlib.Path) -> Given:
    conversations = told()
    embedder = LocalEmbedder.open(minilm_path, name="minilm")
    texts = [*conversations.turns, *(q.text for q in conversations.questions)]
    vectors = [v for at in range(0, len(texts), 128) for v in embedder.embed_counted(texts[at : at + 128])[0]]
    made = np.array(vectors, np.float32)
    return Given(conversations, made[: len(conversations.turns)], made[len(conversations.turns) :])


@pytest.fixture(scope="module")
def memory(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongTerm]:
    models = ModelService(
        {"none": ScriptedBackend([])}, embedders={"minilm": _Vectors(given)}, router=Fixed()
    )
    store = LongTerm(tmp_path_factory.mktemp("memory") / "memory.db", models, wall=lambda: NOW)
    items = [
        Item(text=text, id=str(place), created_s=NOW - 60.0 * (TURNS - place))
        for place, text in enumerate(given.told.turns)
    ]
    run(store.write_all(items, SCOPE), timeout_s=120)
    yield store
    store.close()


def recall(found: Sequence[Sequence[int]], questions: Sequence[Question], k: int) -> float:
    """The mean share of a question's evidence among the first `k` found, in percent; at most `k` can be."""
    shares = [
        len(set(places[:k]) & q.evidence) / min(k, len(q.evidence))
        for places, q in zip(found, questions, strict=True)
    ]
    return 100 * statistics.mean(shares)


def by_words(given: Given) -> list[list[int]]:
    """bm25s as it comes, with English stop words left out."""
    index = bm25s.BM25()
    index.index(
        bm25s.tokenize(list(given.told.turns), stopwords="en", show_progress=False), show_progress=False
    )
    asked = bm25s.tokenize([q.text for q in given.told.questions], stopwords="en", show_progress=False)
    places, _ = index.retrieve(asked, k=MOST, show_progress=False)
    return [[int(place) for place in row] for row in places]


def by_vectors(given: Given) -> list[list[int]]:
    """The cosine alone."""
    nearest = np.argsort(-(given.questions @ given.turns.T), axis=1, kind="stable")[:, :MOST]
    return [[int(place) for place in row] for row in nearest]


def by_memory(given: Given, memory: LongTerm) -> list[list[int]]:
    """What an agent recalls by default."""

    async def ask() -> list[list[int]]:
        every = [await memory.query(q.text, k=MOST, scope=SCOPE) for q in given.told.questions]
        return [[int(str(r.item.id)) for r in found] for found in every]

    return asyncio.run(ask())


@pytest.mark.row("mem-retrieve", "effect")
def test_the_default_recalls_at_least_as_much_evidence_as_words_or_vectors_alone(
    given: Given, memory: LongTerm, measured: Measure
) -> None:
    questions = given.told.questions
    assert len(given.told.turns) == TURNS
    assert len(questions) >= 200
    found = {"words": by_words(given), "vectors": by_vectors(given), "memory": by_memory(given, memory)}
    assert found["memory"] == by_memory(given, memory)
    for k in (5, 10):
        shares = {name: recall(places, questions, k) for name, places in found.items()}
        print(
            f"evidence recall@{k} of {len(questions)}: "
            + ", ".join(f"{n} {s:.1f}" for n, s in shares.items())
        )
        for peer in ("words", "vectors"):
            gained = shares["memory"] - shares[peer]
            measured(
                f"evidence recall@{k} above {peer} ({shares[peer]:.1f})", gained, at_least=0, unit=" points"
            )


@pytest.mark.row("mem-retrieve", "effect")
def test_ten_thousand_items_are_searched_within_five_milliseconds(
    given: Given, memory: LongTerm, measured: Measure
) -> None:
    """The search in the file with the cue's vector given: vectors, words, scores and the items read."""
    search, took = memory._search, []
    for question, vector in zip(given.told.questions, given.questions.tolist(), strict=True):
        begun = time.perf_counter()
        found = search.find(question.text, vector, k=MOST, scope=SCOPE, now_s=NOW)
        took.append(1000 * (time.perf_counter() - begun))
        assert len(found) == MOST
    print(f"search of {TURNS} items: {statistics.median(took):.2f} ms median, {max(took):.2f} ms most")
    measured("search of 10,000 items, median", statistics.median(took), at_most=5, unit=" ms")
