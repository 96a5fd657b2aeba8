"""Long-term memory and the window: what is kept, found, forgotten, and for whom."""

from __future__ import annotations

import json
import pathlib
import time

import apsw
import numpy as np
import pytest

from agent_support import call, harness, run, spec
from pentad.agent.context_builders.base import ContextInput
from pentad.agent.context_builders.compact import Compact
from pentad.agent.events import Recalled
from pentad.agent.memories import Memories
from pentad.agent.memory.base import Item, MemoryServices, Scope
from pentad.agent.memory.file import bound
from pentad.agent.memory.nearest import Nearest
from pentad.agent.memory.scoring import HOUR_S, Weights
from pentad.agent.memory.store import LongTerm
from pentad.agent.memory.window import Window
from pentad.agent.planning.base import View
from pentad.agent.planning.react import React
from pentad.agent.spec import LongTermChoice, MemoryChoice
from pentad.agent.state import RunState
from pentad.choice import Choice
from pentad.errors import Conflict, ContextLengthExceeded, NotFound, Unavailable
from pentad.model.terms import terms, unspaced_share
from pentad.testing.agents import WordEmbedder, scripted_models
from pentad.types import Message

A, B = Scope(tenant="a"), Scope(tenant="b")
NOW = 1_700_000_000.0


def store(path: pathlib.Path, *, now: list[float] | None = None, weights: Weights | None = None) -> LongTerm:
    models, _ = scripted_models([], embedder=True)
    clock = now or [NOW]
    return LongTerm(path / "m.db", models, embedder="words", weights=weights, wall=lambda: clock[0])


def remembering(path: pathlib.Path) -> tuple[Memories, LongTerm]:
    """The memories of a runtime with an embedding model, and the one that agents have by default."""
    models, _ = scripted_models([], embedder=True)
    memories = Memories(MemoryServices(models=models, embedder="words", path=path / "m.db"))
    memory = memories.get(Choice(name="store"))
    assert isinstance(memory, LongTerm)
    return memories, memory


def found(memory: LongTerm, cue: str, scope: Scope = A, k: int = 3) -> list[str]:
    return [r.item.text for r in run(memory.query(cue, k=k, scope=scope))]


@pytest.mark.row("mem-long", "mechanism")
def test_items_survive_a_restart_with_all_that_they_say(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    item = Item(text="Mia likes tea", kind="preference", source="run_1", importance=0.9, expires_s=NOW + 60)
    ident = run(memory.write(item, A))
    memory.close()
    memory = store(tmp_path)
    (hit,) = run(memory.query("what does Mia like", k=3, scope=A))
    assert hit.item == Item(
        id=ident,
        text="Mia likes tea",
        kind="preference",
        source="run_1",
        importance=0.9,
        created_s=NOW,
        expires_s=NOW + 60,
    )
    assert memory.check_integrity() == []
    memory.close()


@pytest.mark.row("mem-long", "mechanism")
def test_no_tenant_finds_counts_or_removes_what_is_anothers(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    ident = run(memory.write(Item(text="the code is tulip"), A))
    run(memory.write(Item(text="the code is rose", id=ident), B))
    assert found(memory, "the code") == ["the code is tulip"]
    assert found(memory, "the code", B) == ["the code is rose"]
    assert found(memory, "code", Scope(tenant="c")) == []
    with pytest.raises(NotFound, match="no memory"):
        run(memory.forget([ident], Scope(tenant="c")))
    assert run(memory.forget([ident], B)) == [ident]
    assert (run(memory.count(A)), run(memory.count(B))) == (1, 0)
    memory.close()


def test_an_agents_own_memories_can_be_asked_for_alone(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    run(memory.write(Item(text="red apples"), Scope(tenant="a", agent="x")))
    run(memory.write(Item(text="green apples"), Scope(tenant="a", agent="y")))
    assert found(memory, "apples", Scope(tenant="a", agent="x")) == ["red apples"]
    assert sorted(found(memory, "apples")) == ["green apples", "red apples"]
    memory.close()


def test_what_has_expired_is_not_found_and_goes_when_consolidated(tmp_path: pathlib.Path) -> None:
    now = [NOW]
    memory = store(tmp_path, now=now)
    run(memory.write(Item(text="offer ends soon", expires_s=NOW + 10), A))
    assert found(memory, "offer") == ["offer ends soon"]
    now[0] += 10
    assert found(memory, "offer") == []
    assert run(memory.consolidate(B)) == 0
    assert run(memory.consolidate(A)) == 1
    assert memory.check_integrity() == []
    memory.close()


def test_consolidation_keeps_the_newest_of_equal_items(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    for age in (30.0, 20.0, 10.0):
        run(memory.write(Item(text="same words", created_s=NOW - age), A))
    run(memory.write(Item(text="same words", kind="episode"), A))
    run(memory.write(Item(text="same words"), B))
    assert run(memory.consolidate(A)) == 2
    left = run(memory.query("same words", k=9, scope=A))
    assert sorted((r.item.kind, r.item.created_s) for r in left) == [("episode", NOW), ("fact", NOW - 10)]
    assert run(memory.count(B)) == 1
    memory.close()


def test_the_same_id_is_kept_once(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    for text in ("first", "second"):
        run(memory.write(Item(text=text, id="run:1:0"), A))
    assert found(memory, "first second") == ["first"]
    assert memory.check_integrity() == []
    memory.close()


@pytest.mark.row("mem-retrieve", "mechanism")
def test_similarity_recency_and_importance_each_decide_when_the_rest_is_equal(tmp_path: pathlib.Path) -> None:
    items = [
        Item(text="zebra one", importance=0.1, created_s=NOW),
        Item(text="quokka two", importance=0.9, created_s=NOW - 900 * HOUR_S),
        Item(text="zebra quokka three", importance=0.1, created_s=NOW - 900 * HOUR_S),
    ]
    only = {"similarity": 0.0, "keyword": 0.0, "recency": 0.0, "importance": 0.0}
    for name, best in (
        ("similarity", "zebra quokka three"),
        ("keyword", "zebra quokka three"),
        ("recency", "zebra one"),
        ("importance", "quokka two"),
    ):
        folder = tmp_path / name
        memory = store(folder, weights=Weights(**{**only, name: 1.0}))
        run(memory.write_all(items, A))
        assert found(memory, "zebra quokka three", k=1) == [best]
        memory.close()


def test_scores_are_shares_and_age_decays_by_the_hour() -> None:
    weights = Weights(decay_per_hour=0.5)
    assert weights.fresh(0) == 1.0
    assert weights.fresh(2 * HOUR_S) == 0.25
    assert weights.fresh(-5) == 1.0
    assert weights.score(similarity=1, keyword=1, recency=1, importance=1) == pytest.approx(1.0)
    for wrong in ({"similarity": -1.0}, {"decay_per_hour": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            Weights(**wrong)


@pytest.mark.parametrize(
    "cue", ['"', "a AND OR NOT (", "*", "text:x", "'; DROP TABLE items; --", "\0\ud800 x", ""]
)
def test_no_cue_breaks_the_query(tmp_path: pathlib.Path, cue: str) -> None:
    memory = store(tmp_path)
    run(memory.write(Item(text="x marks 'the' \"spot\" \ud800"), A))
    run(memory.query(cue, k=3, scope=A))
    assert run(memory.count(A)) == 1
    memory.close()


def test_a_cue_longer_than_the_embedding_model_reads_still_finds(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    run(memory.write(Item(text="needle in the hay"), A))
    assert found(memory, "needle " + "straw " * 5000) == ["needle in the hay"]
    with pytest.raises(ContextLengthExceeded):
        run(memory.write(Item(text="straw " * 300), A))
    assert run(memory.count(A)) == 1
    memory.close()


def test_an_answer_that_cannot_be_remembered_is_an_answer_all_the_same(tmp_path: pathlib.Path) -> None:
    choice = LongTermChoice(episode_characters=100_000)

    async def scenario() -> None:
        memories, memory = remembering(tmp_path)
        async with harness(tmp_path, [["done"]], memory=memories) as h:
            state = await h.work(spec(memory=MemoryChoice(long_term=choice)), "word " * 400)
            assert (state.status, state.answer) == ("answered", "done")
            assert "not remembered" in (state.error or "")
        memory.close()

    run(scenario())


def test_an_empty_store_finds_nothing_and_asks_no_model(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    assert found(memory, "anything") == []
    memory.close()


def test_vectors_of_another_model_are_refused(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    run(memory.write(Item(text="x"), A))
    memory.close()
    models, _ = scripted_models([], embedder=True)
    with pytest.raises(Conflict, match="holds vectors of 'words', not of 'minilm'"):
        LongTerm(tmp_path / "m.db", models, embedder="minilm")


def test_a_file_that_is_no_database_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m.db").write_bytes(b"nonsense" * 200)
    with pytest.raises(Unavailable, match=r"'m\.db' cannot be used"):
        store(tmp_path)


@pytest.mark.parametrize("wrong", [{"text": " "}, {"text": "x", "importance": 1.5}])
def test_items_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"needs text|importance"):
        Item(**wrong)  # type: ignore[arg-type]


def test_an_agent_recalls_what_an_earlier_run_left(tmp_path: pathlib.Path) -> None:
    agent = spec(memory=MemoryChoice(long_term=LongTermChoice(k=2)))

    async def scenario() -> None:
        memories, memory = remembering(tmp_path)
        turns = [["Your boat is called Petrel."], ["Petrel."]]
        async with harness(tmp_path, turns, memory=memories) as h:
            first = await h.work(agent, "my boat is called Petrel")
            second = await h.work(agent, "what is my boat called")
            (event,) = [r.event for r in h.records(second.run_id) if isinstance(r.event, Recalled)]
            assert [item[0] for item in event.items] == [first.run_id]
            prompt = h.backend.requests[1].messages or ()
            assert prompt[-1].role == "user"
            assert "Notes from memory:\n- my boat is called Petrel -> Your boat" in prompt[-1].content
        memory.close()

    run(scenario())


def test_recalled_items_stay_within_their_token_budget(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        memories, memory = remembering(tmp_path)
        scope = Scope(tenant="default", agent="tester")
        await memory.write_all([Item(text="tea " + "long " * 30), Item(text="tea short")], scope)
        agent = spec(memory=MemoryChoice(long_term=LongTermChoice(max_tokens=10, episodes=False)))
        async with harness(tmp_path, [["ok"]], memory=memories) as h:
            state = await h.work(agent, "tea long")
            assert [text for _, text, _ in state.recalled or ()] == ["tea short"]
            assert await memory.count(scope) == 2
        memory.close()

    run(scenario())


def test_the_model_can_remember_and_recall_by_itself(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        memories, memory = remembering(tmp_path)
        turns = [
            [call("remember", text="The user drinks oolong", kind="preference")],
            [call("recall", about="what the user drinks")],
            ["oolong"],
        ]
        async with harness(tmp_path, turns, memory=memories) as h:
            state = await h.work(spec(tools=("remember", "recall")))
            assert state.exchanges[1].results[0].content == "- The user drinks oolong"
            (hit,) = await memory.query("drinks", k=1, scope=Scope(tenant="default", agent="tester"))
            assert hit.item.id == f"{state.run_id}:1:0"
            assert hit.item.source == state.run_id
        memory.close()

    run(scenario())


@pytest.mark.row("mem-short", "mechanism")
def test_the_prompt_never_passes_its_budget_over_two_hundred_turns() -> None:
    """Every turn is a run of its own with all turns before as history, as a long chat is."""

    def count(messages: tuple[Message, ...]) -> int:
        return sum(len(m.content.split()) for m in messages)

    async def unused(text: str) -> str:
        raise AssertionError(text)

    async def scenario() -> None:
        builder, window = Compact(), Window(max_tokens=300)
        history: list[Message] = []
        for turn in range(200):
            goal = f"fact {turn} is value{turn} " + "filler " * (turn % 17)
            state = RunState(run_id="r", spec=spec(), goal=goal, tenant="t", history=tuple(history))
            given = ContextInput(
                draft=React().draft(View(state=state, tools=())),
                state=state,
                window=window,
                limit_tokens=4000,
                count=count,
                summarise=unused,
            )
            built = await builder.build(given)
            assert built.tokens == count(built.messages) <= 300
            assert (built.compacted is not None) == (count((*history, built.messages[-1])) > 300)
            shown = " ".join(m.content for m in built.messages)
            for recent in range(max(0, turn - 9), turn + 1):
                assert f"value{recent} " in shown
            history += [Message(role="user", content=goal), Message(role="assistant", content="noted")]

    run(scenario())


@pytest.mark.row("mem-short", "mechanism")
def test_reading_a_long_window_takes_no_time() -> None:
    recent = Window(max_turns=50).start([f"turn {i}" for i in range(10_000)])
    recent.trim(lambda kept: len(kept) <= 40)
    started = time.perf_counter()
    for _ in range(100):
        assert len(recent.read()) == 40
    assert (time.perf_counter() - started) / 100 < 0.001


def test_a_window_that_cannot_fit_changes_nothing() -> None:
    recent = Window().start([1, 2, 3])
    assert recent.trim(lambda kept: False) is None
    assert list(recent.read()) == [1, 2, 3]
    with pytest.raises(ValueError, match="max_turns is 0"):
        Window(max_turns=0)


LANGUAGES = json.loads(
    (pathlib.Path(__file__).parent.parent / "data" / "memory_languages.json").read_text("utf-8")
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_cues_in_scripts_without_spaces_find_what_they_are_about(
    tmp_path: pathlib.Path, language: str
) -> None:
    memory = store(tmp_path)
    everything = [Item(text=text) for pairs in LANGUAGES.values() for text, _ in pairs]
    run(memory.write_all(everything, A))
    asked = {cue: text for text, cue in LANGUAGES[language]}
    assert {cue: found(memory, cue, k=1)[0] for cue in asked} == asked
    memory.close()


def test_a_file_from_before_is_indexed_anew_and_finds_them_too(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    text, cue = LANGUAGES["ja"][0]
    run(memory.write_all([Item(text=text), Item(text="the sky is blue")], A))
    memory.close()
    with apsw.Connection(str(tmp_path / "m.db")) as db:
        # As version 1 wrote it: the text as it is, which no cue of other words finds.
        db.execute("INSERT INTO words (words) VALUES ('delete-all')")
        db.execute("INSERT INTO words (rowid, text) SELECT number, text FROM items")
        for column in ("derived_from", "superseded_by", "details"):
            db.execute(f"ALTER TABLE items DROP COLUMN {column}")
        db.execute("PRAGMA user_version = 1")
    memory = store(tmp_path)
    (first, *_) = run(memory.query(cue, k=2, scope=A))
    assert (first.item.text, first.keyword) == (text, 1.0)
    assert memory.check_integrity() == []
    memory.close()


def test_an_agents_items_are_found_however_many_others_are_nearer(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    run(memory.write_all([Item(text=f"tea {n}") for n in range(300)], Scope(tenant="a", agent="other")))
    run(memory.write(Item(text="cups for tea and much else besides"), Scope(tenant="a", agent="mine")))
    assert found(memory, "tea", Scope(tenant="a", agent="mine")) == ["cups for tea and much else besides"]
    memory.close()


def test_what_another_process_wrote_or_forgot_is_known_at_the_next_query(tmp_path: pathlib.Path) -> None:
    one, other = store(tmp_path), store(tmp_path)
    run(one.write(Item(text="red apples", id="red"), A))
    assert found(other, "apples") == ["red apples"]
    run(one.write(Item(text="green apples", id="green"), A))
    assert sorted(found(other, "apples")) == ["green apples", "red apples"]
    run(other.forget(["red"], A))
    assert found(one, "apples") == ["green apples"]
    one.close()
    other.close()


def test_vectors_too_many_to_hold_are_found_all_the_same(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path)
    run(memory.write_all([Item(text=f"word{n} tea{n % 7} milk{n % 5}") for n in range(200)], A))
    db, scope = memory._db, Scope(tenant="a")
    vector = np.asarray(WordEmbedder().embed_counted(["word3 tea3 milk3"])[0][0], np.float32)
    held, cosines = Nearest(db).find(vector, scope, NOW, 20)
    asked, others = Nearest(db, most_held=100).find(vector, scope, NOW, 20)
    assert sorted(held.values()) == pytest.approx(sorted(asked.values()), abs=1e-5)
    assert [cosines.of(n) for n in (1, 50, 200, 999)] == pytest.approx(
        [others.of(n) for n in (1, 50, 200, 999)], abs=1e-5
    )
    assert held[4] == pytest.approx(cosines.of(4)) == pytest.approx(1.0)
    memory.close()


def test_common_words_are_left_out_of_a_search_only_where_rarer_ones_are(tmp_path: pathlib.Path) -> None:
    memory = store(tmp_path, weights=Weights(similarity=0, keyword=1, recency=0, importance=0))
    run(
        memory.write_all([Item(text=f"the cup number {n}") for n in range(80)] + [Item(text="the quokka")], A)
    )
    keywords = memory._search._keywords("the quokka", bound(A, NOW), 100)
    assert list(keywords.values()) == [1.0]
    assert len(memory._search._keywords("the cup", bound(A, NOW), 100)) == 81
    memory.close()


def test_words_with_spaces_are_searched_as_they_are() -> None:
    assert terms("Mia's tea, 12 cups") == "Mia's tea, 12 cups"
    assert unspaced_share("Mia's tea") == 0.0
    assert unspaced_share("犬です") == 1.0
    assert unspaced_share("犬です abc") == 0.5
    assert unspaced_share("?") == 0.0
    assert Weights().for_cue(0.0) == Weights()
