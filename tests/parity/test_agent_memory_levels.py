"""Levels of memory with the real embedding model: what searching less finds, beside searching everything."""

from __future__ import annotations

import pathlib
import random

import pytest

from agent_facts import Fact, facts
from agent_support import run
from evidence.plugin import Measure
from pentad.agent.memory.base import Item, Memory, MemoryServices, Scope
from pentad.agent.memory.levels import Levels
from pentad.agent.memory.store import Store
from pentad.model.embedding import LocalEmbedder
from pentad.model.routing.fixed import Fixed
from pentad.model.service import ModelService
from pentad.testing.backends import ScriptedBackend

MINE = Scope(tenant="t", agent="me")
OTHER = Scope(tenant="t", agent="other")
COST = {"own": 1, "team": 2, "documents": 4}
"""What a search of a level costs: documents are read from files, the team's items are the more."""


@pytest.fixture(scope="module")
def services(minilm_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> MemoryServices:
    embedder = LocalEmbedder.open(minilm_path, name="minilm")
    models = ModelService({"none": ScriptedBackend([])}, embedders={"minilm": embedder}, router=Fixed())
    folder = tmp_path_factory.mktemp("levels")
    return MemoryServices(models=models, embedder="minilm", path=folder / "memory.db")


@pytest.mark.row("fut-knowledge-levels", "effect", claims=(1,))
def test_levels_find_as_much_as_a_search_of_all_at_half_its_cost(
    services: MemoryServices, tmp_path: pathlib.Path, measured: Measure
) -> None:
    """Each person's facts lie at one level; three questions in five are about the agent's own people."""
    everything = facts()
    first = {name: number for number, name in enumerate(sorted({f.text.split()[0] for f in everything}))}
    of: dict[str, list[Fact]] = {"own": [], "team": [], "documents": []}
    for fact in everything:
        of[("own", "team", "documents")[first[fact.text.split()[0]] % 3]].append(fact)
    for number, fact in enumerate(of["documents"]):
        (tmp_path / f"{number:03}.md").write_text(fact.text + ".\n")
    levels = Levels(team=True, folder=str(tmp_path)).open(services)
    whole = Levels(team=True, folder=str(tmp_path), enough=1.0).open(services)
    store = Store().open(services)
    for level, scope in (("own", MINE), ("team", OTHER)):
        run(store.write_all([Item(text=fact.text) for fact in of[level]], scope), timeout_s=120)
    store.close()
    # Documents are read and embedded at the first search.
    run(whole.query("warm", k=1, scope=MINE), timeout_s=120)
    run(levels.query("warm", k=1, scope=MINE), timeout_s=120)
    for memory in (levels, whole):
        memory.searched.update(own=0, team=0, documents=0)
    source = random.Random(3)
    asked = [
        *source.sample(of["own"], 60),
        *source.sample(of["team"], 25),
        *source.sample(of["documents"], 15),
    ]

    def answered(memory: Memory) -> float:
        hits = sum(
            any(fact.text in r.item.text for r in run(memory.query(fact.question, k=5, scope=MINE)))
            for fact in asked
        )
        return 100 * hits / len(asked)

    cost = {}
    share = {"levels": answered(levels), "all": answered(whole)}
    for name, memory in (("levels", levels), ("all", whole)):
        cost[name] = sum(COST[level] * times for level, times in memory.searched.items())
        print(name, share[name], memory.searched, cost[name])
    measured(
        "answers found, beside a search of all", share["levels"] - share["all"], at_least=-1, unit=" points"
    )
    measured("retrieval cost, as a share of a search of all", cost["levels"] / cost["all"], at_most=0.5)
    levels.close()
    whole.close()
