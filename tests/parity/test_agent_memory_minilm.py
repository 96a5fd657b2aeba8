"""Long-term memory with the real embedding model: does it find what was told?"""

from __future__ import annotations

import json
import pathlib
import random
import time
from collections.abc import Callable

import pytest

from agent_facts import Fact, facts
from agent_support import run
from evidence.plugin import Measure
from pentad.agent.memory.base import Item, Scope
from pentad.agent.memory.store import LongTerm
from pentad.model.embedding import LocalEmbedder
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend

SCOPE = Scope(tenant="t")
HOUR_S = 3600.0
NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def told() -> list[Fact]:
    return facts()


@pytest.fixture(scope="module")
def reopen(
    minilm_path: pathlib.Path, told: list[Fact], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], LongTerm]:
    """Opens a store that an earlier one filled with a thousand facts, one told each hour."""
    path = tmp_path_factory.mktemp("memory") / "memory.db"
    embedder = LocalEmbedder.open(minilm_path, name="minilm")
    models = ModelService({"none": ScriptedBackend([])}, embedders={"minilm": embedder}, router=Fixed())

    def open_store() -> LongTerm:
        return LongTerm(path, models, wall=lambda: NOW)

    memory = open_store()
    items = [
        Item(text=fact.text, created_s=NOW - HOUR_S * (len(told) - number), source=f"run_{number}")
        for number, fact in enumerate(told)
    ]
    for start in range(0, len(items), 100):
        run(memory.write_all(items[start : start + 100], SCOPE), timeout_s=120)
    memory.close()
    return open_store


@pytest.mark.row("mem-long", "effect", claims=(1,))
def test_after_a_restart_the_right_one_of_a_thousand_facts_is_in_the_top_five(
    reopen: Callable[[], LongTerm], told: list[Fact], measured: Measure
) -> None:
    memory = reopen()
    asked = random.Random(1).sample(told, 100)
    hits, times = 0, []
    for fact in asked:
        started = time.perf_counter()
        found = run(memory.query(fact.question, k=5, scope=SCOPE))
        times.append(time.perf_counter() - started)
        hits += fact.text in [r.item.text for r in found]
    memory.close()
    median_ms = 1000 * sorted(times)[len(times) // 2]
    print(f"right fact in the top 5: {hits} of {len(asked)}; {median_ms:.1f} ms median with embedding")
    measured("right fact in the top 5", hits / len(asked), at_least=0.9)
    measured("median look-up with embedding", median_ms, at_most=50, unit=" ms")


@pytest.mark.row("mem-retrieve", "effect", claims=(1,))
def test_scored_retrieval_beats_recency_alone_at_the_same_budget(
    reopen: Callable[[], LongTerm], told: list[Fact], measured: Measure
) -> None:
    """300 questions, a third of them about the last twenty facts, as people ask; five items each."""
    memory = reopen()
    source = random.Random(2)
    asked = source.choices(told[-20:], k=100) + source.sample(told, 200)
    latest = [fact.text for fact in told[-5:]]
    scored = sum(
        fact.text in [r.item.text for r in run(memory.query(fact.question, k=5, scope=SCOPE))]
        for fact in asked
    )
    recent = sum(fact.text in latest for fact in asked)
    memory.close()
    print(f"recall@5 of {len(asked)}: scored {scored}, recency only {recent}")
    points = 100 * (scored - recent) / len(asked)
    measured("recall@5 above recency alone", points, at_least=10, unit=" points")


@pytest.mark.parametrize("language", ["ja", "zh", "th", "ko"])
def test_an_english_embedder_does_not_keep_other_scripts_from_being_found(
    minilm_path: pathlib.Path, tmp_path: pathlib.Path, language: str
) -> None:
    told = json.loads(
        (pathlib.Path(__file__).parent.parent / "data" / "memory_languages.json").read_text("utf-8")
    )
    embedder = LocalEmbedder.open(minilm_path, name="minilm")
    models = ModelService({"none": ScriptedBackend([])}, embedders={"minilm": embedder}, router=Fixed())
    memory = LongTerm(tmp_path / "memory.db", models)

    async def best(cue: str) -> str:
        return (await memory.query(cue, k=1, scope=SCOPE))[0].item.text

    run(memory.write_all([Item(text=text) for pairs in told.values() for text, _ in pairs], SCOPE))
    assert [run(best(cue)) for _, cue in told[language]] == [text for text, _ in told[language]]
    memory.close()
