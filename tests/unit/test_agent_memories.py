"""Memories: what every registered one keeps to, how an agent chooses one, and that it is opened once."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from agent_support import call, harness, run, spec
from pentad import registry
from pentad.agent.events import Recalled
from pentad.agent.loading import agent_from
from pentad.agent.memories import Memories
from pentad.agent.memory.base import (
    Experience,
    Item,
    Memory,
    MemoryServices,
    MemoryStrategy,
    Occasion,
    Sample,
    Scope,
    Think,
)
from pentad.agent.spec import LongTermChoice, MemoryChoice
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest, NotFound, UnknownName
from pentad.testing.agents import scripted_models
from pentad.types import Message

NOW = 1_700_000_000.0
MINE = Scope(tenant="a", agent="me")


def services(path: pathlib.Path, now: Sequence[float] = (NOW,)) -> MemoryServices:
    models, _ = scripted_models([], embedder=True)
    return MemoryServices(models=models, embedder="words", path=path / "m.db", wall=lambda: now[0])


async def said(system: str, text: str, max_tokens: int) -> str:
    """What a model may say to any question of a memory: a note, a fact and an answer."""
    return "boat: Petrel\nUser sails.\nanswer: 4"


async def drawn(
    system: str, text: str, max_tokens: int, *, samples: int, temperature: float
) -> tuple[str, ...]:
    return (await said(system, text, max_tokens),) * samples


def named(secret: str) -> Think:
    """A model that repeats a secret to whatever it is asked."""

    async def think(system: str, text: str, max_tokens: int) -> str:
        return f"boat: {secret}\nUser has {secret}.\nanswer: {secret}"

    return think


def names(secret: str) -> Sample:
    async def sample(
        system: str, text: str, max_tokens: int, *, samples: int, temperature: float
    ) -> tuple[str, ...]:
        return (await named(secret)(system, text, max_tokens),) * samples

    return sample


@pytest.mark.parametrize("name", registry.known("memory"))
class TestEveryMemory:
    @pytest.fixture
    def now(self) -> list[float]:
        return [NOW]

    @pytest.fixture
    def memory(self, name: str, tmp_path: pathlib.Path, now: list[float]) -> Iterator[Memory]:
        strategy: MemoryStrategy = build("memory", Choice(name=name))
        memory = strategy.open(services(tmp_path, now))
        yield memory
        memory.close()

    def texts(self, memory: Memory, cue: str, k: int = 9, scope: Scope = MINE) -> list[str]:
        return [found.item.text for found in run(memory.query(cue, k=k, scope=scope))]

    def test_what_was_written_comes_back_whole_at_most_k_and_the_same_each_time(self, memory: Memory) -> None:
        item = Item(text="tea is green", kind="preference", source="run_1", importance=0.8, id="one")
        assert run(memory.write(item, MINE)) == "one"
        made = run(memory.write(Item(text="tea is hot"), MINE))
        assert made != "one"
        found = run(memory.query("tea", k=9, scope=MINE))
        assert found == run(memory.query("tea", k=9, scope=MINE))
        assert replace(item, created_s=NOW) in [each.item for each in found]
        for each in found:
            assert all(0 <= score <= 1 for score in (each.score, each.similarity, each.keyword, each.recency))
        assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
        assert len(self.texts(memory, "tea", k=1)) == 1
        assert self.texts(memory, "tea", k=0) == self.texts(memory, "  ") == []

    def test_the_same_id_is_kept_once(self, memory: Memory) -> None:
        for text in ("first", "second"):
            run(memory.write(Item(text=text, id="one"), MINE))
        assert self.texts(memory, "first second") == ["first"]

    def test_other_tenants_see_nothing_and_other_agents_where_it_is_shared(self, memory: Memory) -> None:
        run(memory.write(Item(text="mine", id="x"), MINE))
        run(memory.write(Item(text="theirs", id="x"), Scope(tenant="b", agent="me")))
        assert self.texts(memory, "mine theirs") == ["mine"]
        assert self.texts(memory, "mine theirs", scope=Scope(tenant="a", agent="other")) == []
        assert self.texts(memory, "mine theirs", scope=Scope(tenant="a")) == ["mine"]
        assert run(memory.consolidate(Scope(tenant="b", agent="me"))) == 0

    def test_newer_comes_before_older_of_equal_items(self, memory: Memory, now: list[float]) -> None:
        run(memory.write(Item(text="tea", source="old"), MINE))
        now[0] += 3600 * 24
        run(memory.write(Item(text="tea", source="new"), MINE))
        assert [each.item.source for each in run(memory.query("tea", k=2, scope=MINE))] == ["new", "old"]

    def test_what_has_expired_or_is_kept_twice_goes_when_consolidated(
        self, memory: Memory, now: list[float]
    ) -> None:
        run(memory.write(Item(text="tea", id="old"), MINE))
        run(memory.write(Item(text="milk", id="milk", expires_s=NOW + 5), MINE))
        now[0] += 1
        run(memory.write(Item(text="tea", id="new"), MINE))
        assert len(self.texts(memory, "tea milk")) == 3
        now[0] += 10
        assert sorted(self.texts(memory, "tea milk")) == ["tea", "tea"]
        assert run(memory.consolidate(MINE)) == 2
        assert [each.item.id for each in run(memory.query("tea milk", k=9, scope=MINE))] == ["new"]
        assert run(memory.consolidate(MINE)) == 0

    def test_what_is_corrected_is_kept_and_no_longer_recalled(self, memory: Memory, now: list[float]) -> None:
        old = run(memory.write(Item(text="the boat is red", source="run_1"), MINE))
        now[0] += 1
        better = Item(text="the boat is blue", source="run_2", id="better", details={"by": "Mia"})
        for _ in range(2):
            assert run(memory.supersede(old, better, MINE)) == "better"
        assert self.texts(memory, "the boat is red") == ["the boat is blue"]
        first, second = run(memory.items(MINE))
        assert (first.id, first.superseded_by, first.text) == (old, "better", "the boat is red")
        assert second == replace(better, created_s=NOW + 1)
        assert run(memory.consolidate(MINE)) == 0
        for scope in (Scope(tenant="b"), Scope(tenant="a", agent="other")):
            with pytest.raises(NotFound, match=f"no memory '{old}'"):
                run(memory.supersede(old, Item(text="stolen", id="x"), scope))
            assert self.texts(memory, "stolen", scope=scope) == []

    def test_what_is_forgotten_goes_with_its_versions_and_what_was_made_of_it(self, memory: Memory) -> None:
        run(memory.write(Item(text="the boat is red", id="v1"), MINE))
        run(memory.supersede("v1", Item(text="the boat is dark red", id="v2"), MINE))
        run(memory.write(Item(text="Mia has a red boat", id="made", derived_from=("v1", "tea")), MINE))
        run(memory.write(Item(text="boats are red", id="again", derived_from=("made",)), Scope(tenant="a")))
        run(memory.write(Item(text="tea is green", id="tea"), MINE))
        run(memory.write(Item(text="the boat is theirs", id="v1"), Scope(tenant="b")))
        with pytest.raises(NotFound):
            run(memory.forget(["v2", "nope"], MINE))
        assert len(run(memory.items(MINE))) == 4
        assert sorted(run(memory.forget(["v2"], MINE))) == ["again", "made", "v1", "v2"]
        assert [item.id for item in run(memory.items(Scope(tenant="a")))] == ["tea"]
        assert self.texts(memory, "red boat tea") == ["tea is green"]
        assert len(run(memory.items(Scope(tenant="b")))) == 1

    def test_a_run_is_learned_once_and_goes_with_what_it_recalled(self, memory: Memory) -> None:
        run(memory.write(Item(text="Mia sails", id="told"), MINE))
        ended = Experience(
            run_id="run_1",
            goal="what does Mia do",
            answer="She sails.",
            answered=True,
            think=said,
            sample=drawn,
            steps=(("", "look {}"), ("a boat", "answer She sails.")),
            recalled=("told",),
            text="what does Mia do -> She sails.",
        )
        for _ in range(2):
            run(memory.learn(ended, MINE))
        kept = [item for item in run(memory.items(MINE)) if item.id != "told"]
        assert kept != []
        assert all((i.source, i.derived_from) == ("run_1", ("told",)) for i in kept)
        assert all(run(memory.item(str(i.id), MINE)) == i for i in kept)
        once = len(kept)
        run(memory.learn(replace(ended, run_id="run_2", answered=False, steps=()), MINE))
        assert len(run(memory.items(MINE))) == once + 1
        assert len(run(memory.forget(["told"], MINE))) == once + 1
        assert run(memory.items(MINE)) == []

    def test_what_is_forgotten_is_found_by_no_query_no_index_and_no_scan_of_files(
        self, memory: Memory, tmp_path: pathlib.Path
    ) -> None:
        secret = "Zanzibarium"
        run(memory.write(Item(text="Mia sails"), MINE))
        run(memory.write(Item(text=f"the boat is called {secret}", id="told"), MINE))
        run(memory.supersede("told", Item(text=f"her boat is called {secret} II", id="newer"), MINE))
        ended = Experience(
            run_id="run_1",
            goal=f"where does {secret} lie",
            answer=f"{secret} lies in the harbour.",
            answered=True,
            think=named(secret),
            sample=names(secret),
            history=(Message(role="user", content=f"{secret}!"), Message(role="assistant", content="Yes?")),
            steps=(("", f"look {secret}"), (f"{secret} in the harbour", "answer")),
            recalled=("newer",),
            text=f"where does {secret} lie -> in the harbour",
        )
        run(memory.learn(ended, MINE))
        # What a later turn of the conversation makes of it goes too, also what it writes down itself.
        run(memory.learn(replace(ended, run_id="run_2"), MINE))
        assert any(secret in text for text in self.texts(memory, secret))
        gone = run(memory.forget(["told"], MINE))
        assert len(gone) >= 3
        assert [run(memory.item(ident, MINE)) for ident in gone] == [None] * len(gone)
        occasion = Occasion(goal=f"what of {secret}", think=said, history=ended.history)
        for found in (
            run(memory.query(secret, k=9, scope=MINE)),
            run(memory.query(f"the boat is called {secret}", k=9, scope=Scope(tenant="a"))),
            run(memory.recall(occasion, k=9, scope=MINE)),
        ):
            assert [r for r in found if secret.casefold() in repr(r).casefold()] == []
        assert [i.text for i in run(memory.items(Scope(tenant="a")))] == ["Mia sails"]
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or secret.casefold().encode() not in path.read_bytes().lower(), path

    def test_is_opened_only_where_what_it_needs_is_there(self, name: str, tmp_path: pathlib.Path) -> None:
        strategy: MemoryStrategy = build("memory", Choice(name=name))
        assert strategy.needs <= {"embedder", "file"}
        whole = services(tmp_path)
        for lacking, need in (
            (replace(whole, embedder=None), "embedder"),
            (replace(whole, path=None), "file"),
        ):
            memories = Memories(lacking)
            assert (memories.get(Choice(name=name)) is None) is (need in strategy.needs)
            memories.close()
        assert Memories(None).get(Choice(name=name)) is None


def test_each_choice_is_opened_once_and_shared(tmp_path: pathlib.Path) -> None:
    memories = Memories(services(tmp_path))
    one, other = Choice(name="buffer"), Choice(name="buffer", options={"most_items": 2})
    assert memories.get(one) is memories.get(Choice(name="buffer"))
    assert memories.get(one) is not memories.get(other)
    memories.close()


def test_a_file_opened_under_other_weights_sees_what_was_written_first(tmp_path: pathlib.Path) -> None:
    memories = Memories(services(tmp_path))
    plain, keywords = (
        memories.get(Choice(name="store", options=options)) for options in ({}, {"keyword": 5.0})
    )
    assert plain is not None
    assert keywords is not None
    assert run(keywords.query("tea", k=1, scope=MINE)) == []
    run(plain.write(Item(text="tea"), MINE))
    assert len(run(keywords.query("tea", k=1, scope=MINE))) == 1
    memories.close()


def test_a_buffer_keeps_the_newest_of_each_agent() -> None:
    models, _ = scripted_models([])
    memory = build("memory", Choice(name="buffer", options={"most_items": 2})).open(
        MemoryServices(models=models, wall=lambda: NOW)
    )
    for text in ("one", "two", "three"):
        run(memory.write(Item(text=text), MINE))
    run(memory.write(Item(text="four"), Scope(tenant="a", agent="other")))
    found = [each.item.text for each in run(memory.query("x", k=9, scope=MINE))]
    assert found == ["three", "two"]


@pytest.mark.parametrize("written", ["buffer:most_items=2", {"name": "buffer", "options": {"most_items": 2}}])
def test_an_agent_file_chooses_its_memory(written: object) -> None:
    agent = agent_from({"name": "a", "memory": {"store": written, "long_term": {"k": 2}}})
    assert agent.memory.store == Choice(name="buffer", options={"most_items": 2})
    assert agent_from({"name": "a", "memory": {"long_term": {}}}).memory.store == Choice(name="store")


def test_a_memory_that_is_not_there_is_refused_before_the_run(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with harness(tmp_path, [["done"]]) as h:
            for choice, error, says in (
                (Choice(name="bufer"), UnknownName, "did you mean 'buffer'"),
                (Choice(name="store", options={"keywrd": 1}), InvalidRequest, "did you mean 'keyword'"),
                (
                    Choice(name="store", options={"keyword": -1.0}),
                    InvalidRequest,
                    "weights must be 0",
                ),
            ):
                with pytest.raises(error, match=says):
                    await h.runtime.start(spec(memory=MemoryChoice(store=choice)), "x")

    run(scenario())


def test_an_agent_with_a_buffer_remembers_without_an_embedding_model(tmp_path: pathlib.Path) -> None:
    agent = spec(
        tools=("remember",), memory=MemoryChoice(store=Choice(name="buffer"), long_term=LongTermChoice(k=2))
    )
    other = replace(agent, memory=MemoryChoice(long_term=LongTermChoice(k=2)), tools=())

    async def scenario() -> None:
        models, _ = scripted_models([])
        memories = Memories(MemoryServices(models=models))
        turns = [[call("remember", text="The boat is called Petrel")], ["Noted."], ["Petrel."], ["?"]]
        async with harness(tmp_path, turns, memory=memories) as h:
            first = await h.work(agent, "remember my boat")
            second = await h.work(agent, "what is my boat called")
            (event,) = [r.event for r in h.records(second.run_id) if isinstance(r.event, Recalled)]
            assert [text for _, text, _ in event.items] == [
                "remember my boat -> Noted.",
                "The boat is called Petrel",
            ]
            assert event.items[0][0] == first.run_id
            third = await h.work(other, "what is my boat called")
            assert not any(isinstance(r.event, Recalled) for r in h.records(third.run_id))

    run(scenario())
