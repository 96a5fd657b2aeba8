"""A fact forgotten everywhere: no query, no index and no byte of any file has it; the rest stays."""

from __future__ import annotations

import pathlib
import struct
import zlib
from dataclasses import replace

import pytest

from agent_support import call, harness, run, spec
from pentad.agent.forgetting import forget_everywhere, traces
from pentad.agent.memories import Memories
from pentad.agent.memory.base import Item, MemoryServices, Scope
from pentad.agent.memory.records import memories
from pentad.agent.memory.store import LongTerm
from pentad.agent.spec import LongTermChoice, MemoryChoice
from pentad.choice import Choice
from pentad.errors import Conflict, NotFound
from pentad.testing.agents import WordEmbedder, scripted_models

CANARY = "xylophonequokka"
FACT = f'Mia plays the "{CANARY}" on Sundays'
SCOPE = Scope(tenant="default", agent="tester")
AGENT = spec(tools=("remember", "recall"), memory=MemoryChoice(long_term=LongTermChoice(k=1)))


def holding(folder: pathlib.Path, *needles: bytes) -> list[str]:
    """The files in which one of the needles is found."""
    return [p.name for p in folder.iterdir() for needle in needles if needle in p.read_bytes()]


def opened(folder: pathlib.Path) -> tuple[Memories, LongTerm]:
    models, _ = scripted_models([], embedder=True)
    found = Memories(MemoryServices(models=models, embedder="words", path=folder / "memory.db"))
    memory = found.get(Choice(name="store"))
    assert isinstance(memory, LongTerm)
    return found, memory


def test_after_it_is_forgotten_no_query_no_index_and_no_file_has_a_fact(tmp_path: pathlib.Path) -> None:
    """Four runs: one tells it, one repeats it, one what that made of it, one is another agent's."""

    async def scenario() -> None:
        turns = [
            [call("remember", text=FACT)],
            ["Noted."],
            [f"She plays the {CANARY}."],
            [call("remember", text="Sundays are for music")],
            ["It is for music."],
            [call("remember", text="Bread is baked at dawn")],
            ["At dawn."],
        ]
        every, memory = opened(tmp_path)
        async with harness(tmp_path, turns, memory=every) as h:
            first = await h.work(AGENT, "please keep what Mia plays")
            second = await h.work(AGENT, "what does Mia play, a harp?")
            third = await h.work(AGENT, "what does Mia play, a harp, and what of Sundays?")
            fourth = await h.work(replace(AGENT, name="baker"), "zebra bread")
            assert [r.event.items[0][0] for r in h.records(second.run_id) if r.kind == "recalled"] != []
            ident = f"{first.run_id}:1:0"
            texts = [p.text or "" for r in (first, second, third) for p in h.journal.prompts(r.run_id)]
            packed = [zlib.compress(text.encode(), 6)[:200] for text in texts if CANARY in text]
            vector = struct.pack("64f", *WordEmbedder().embed_counted([FACT])[0][0])
            needles = (CANARY.encode()[:10], vector, ident.encode(), *packed)
            assert len(packed) >= 2
            assert all(holding(tmp_path, needle) for needle in needles)

            found = traces(h.journal, memory.path, [ident], tenant="default")
            assert set(found.runs) == {first.run_id, second.run_id, third.run_id}
            assert forget_everywhere(h.journal, memory.path, [ident], tenant="default") == found
            assert holding(tmp_path, *needles) == []
            assert [row.id for row in h.runtime.list()] == [fourth.run_id]
            left = {m.item.text for m in memories(memory.path)}
            assert left == {"Bread is baked at dawn", "zebra bread -> At dawn."}
            for cue in (FACT, CANARY, "what does Mia play", "Sundays music"):
                hits = await memory.query(cue, k=9, scope=SCOPE)
                assert all(hit.item.text in left for hit in hits)
            assert memory.check_integrity() == []
        every.close()
        assert holding(tmp_path, *needles) == []

    run(scenario())


def test_other_facts_of_the_run_that_told_it_stay(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        turns = [
            [call("remember", ident="a", text=FACT), call("remember", ident="b", text="Tea is green")],
            ["Noted."],
        ]
        every, memory = opened(tmp_path)
        async with harness(tmp_path, turns, memory=every) as h:
            state = await h.work(AGENT, "keep both")
            forget_everywhere(h.journal, memory.path, [f"{state.run_id}:1:0"], tenant="default")
            assert [m.item.text for m in memories(memory.path)] == ["Tea is green"]
            assert h.runtime.list() == []
        every.close()

    run(scenario())


def test_nothing_goes_while_a_run_that_tells_it_is_worked_on(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        every, memory = opened(tmp_path)
        await memory.write(Item(text=FACT, id="fact"), SCOPE)
        async with harness(tmp_path, [["done"]], memory=every) as h:
            run_id = await h.runtime.start(AGENT, FACT)
            with pytest.raises(Conflict, match="pentad runs cancel"):
                forget_everywhere(h.journal, memory.path, ["fact"], tenant="default")
            assert [m.item.id for m in memories(memory.path)][-1] == "fact"
            await h.runtime.wait(run_id)
            with pytest.raises(NotFound, match="no memory 'fact'"):
                traces(h.journal, memory.path, ["fact"], tenant="other")
        every.close()

    run(scenario())
