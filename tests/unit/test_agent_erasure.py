"""What was removed is in no file any more: text, index, vector, compressed prompt."""

from __future__ import annotations

import pathlib
import struct
import zlib

import pytest

from agent_support import call, harness, run, spec
from pentad.agent.erasure import remove_runs
from pentad.agent.journal import Journal
from pentad.agent.memory.base import Item, Scope
from pentad.agent.memory.records import forget, forget_episodes, memories
from pentad.agent.memory.store import LongTerm
from pentad.agent.tools.functions import tool
from pentad.errors import Conflict, NotFound
from pentad.testing.agents import WordEmbedder, scripted_models

CANARY = "xylophonequokka"


def holding(folder: pathlib.Path, *needles: bytes) -> list[str]:
    """The files in which one of the needles is found."""
    assert all(needles)
    return [p.name for p in folder.iterdir() for needle in needles if needle in p.read_bytes()]


@tool(effects="none")
def look(what: str) -> str:
    """Looks."""
    return f"{what} " * 400


def test_a_removed_run_leaves_no_byte_while_a_server_has_the_journal_open(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        turns = [[call("look", what=CANARY)], [f"saw {CANARY}"]]
        others = [[call("look", what="plain")], ["saw it"]]
        async with harness(tmp_path, others * 4 + turns + others * 4, [look]) as h:
            for _ in range(4):
                await h.work(spec(tools=("look",)), "look at something plain")
            state = await h.work(spec(tools=("look",)), f"look at {CANARY}")
            for _ in range(4):
                await h.work(spec(tools=("look",)), "look at something plain")
            texts = [prompt.text for prompt in h.journal.prompts(state.run_id)]
            packed = [zlib.compress((text or "").encode(), 6)[:200] for text in texts]
            run_id = state.run_id.encode()
            assert holding(tmp_path, CANARY.encode()) != []
            assert all(holding(tmp_path, one) for one in packed)
            remove_runs(h.journal.store, [state.run_id])
            assert holding(tmp_path, CANARY.encode(), run_id, *packed) == []
            with pytest.raises(NotFound):
                h.runtime.show(state.run_id)
            assert len(h.runtime.list()) == 8
        assert holding(tmp_path, CANARY.encode(), run_id, *packed) == []

    run(scenario())


def test_runs_are_removed_all_or_none_and_never_under_who_works_on_them(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["one"], ["two"]]) as h:
            first = (await h.work(spec())).run_id
            second = await h.runtime.start(spec(), "again")
            with pytest.raises(Conflict, match=rf"pentad runs cancel {second}"):
                remove_runs(h.journal.store, [first, second])
            await h.runtime.wait(second)
            with pytest.raises(NotFound, match="no run 'nope'"):
                remove_runs(h.journal.store, [first, "nope"])
            assert {row.id for row in h.runtime.list()} == {first, second}

    run(scenario())


def remembering(path: pathlib.Path) -> LongTerm:
    models, _ = scripted_models([], embedder=True)
    return LongTerm(path / "memory.db", models, embedder="words")


def test_a_forgotten_memory_leaves_neither_text_nor_words_nor_vector(tmp_path: pathlib.Path) -> None:
    scope, text = Scope(tenant="t"), f"Mia plays the {CANARY} on Sundays"
    ((vector,), _) = WordEmbedder().embed_counted([text])
    packed = struct.pack(f"{len(vector)}f", *vector)
    memory = remembering(tmp_path)
    for number in range(60):
        run(memory.write(Item(text=f"fact {number} about tea and bread"), scope))
    ident = run(memory.write(Item(text=text), scope))
    for number in range(60):
        run(memory.write(Item(text=f"fact {number} about rain and wind"), scope))
    # The stem that the index holds is shorter than the word.
    needles = (CANARY.encode()[:10], packed, ident.encode())
    assert holding(tmp_path, packed) != []
    assert forget(tmp_path / "memory.db", [ident]) == [ident]
    assert holding(tmp_path, *needles) == []
    assert memory.check_integrity() == []
    hits = run(memory.query("tea and bread", k=3, scope=scope))
    assert len(hits) == 3
    assert all("tea" in hit.item.text for hit in hits)
    memory.close()
    assert holding(tmp_path, *needles) == []


def test_what_memory_kept_of_a_removed_run_goes_with_it_and_facts_stay(tmp_path: pathlib.Path) -> None:
    memory, scope = remembering(tmp_path), Scope(tenant="t")
    run(memory.write(Item(id="run_1", text=f"{CANARY} -> done", kind="episode", source="run_1"), scope))
    run(memory.write(Item(text="Mia likes tea", source="run_1"), scope))
    memory.close()
    assert forget_episodes(tmp_path / "memory.db", ["run_1", "run_2"]) == 1
    assert holding(tmp_path, CANARY.encode()[:10]) == []
    assert [m.item.text for m in memories(tmp_path / "memory.db")] == ["Mia likes tea"]


def test_a_memory_that_is_not_there_is_told_and_nothing_is_forgotten(tmp_path: pathlib.Path) -> None:
    memory = remembering(tmp_path)
    ident = run(memory.write(Item(text="Mia likes tea"), Scope(tenant="t")))
    memory.close()
    with pytest.raises(NotFound, match="no memory 'nope'"):
        forget(tmp_path / "memory.db", [ident, "nope"])
    with pytest.raises(NotFound):
        forget(tmp_path / "memory.db", [ident], tenant="other")
    assert len(memories(tmp_path / "memory.db")) == 1


def test_a_journal_that_is_being_replaced_is_not_opened(tmp_path: pathlib.Path) -> None:
    from pentad.agent.usage_lock import alone

    with alone(tmp_path / "j.db"), pytest.raises(Conflict, match="being replaced"):
        Journal(tmp_path / "j.db")
    Journal(tmp_path / "j.db").close()
