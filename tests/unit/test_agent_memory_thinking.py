"""Memories that ask the model: thoughts that agree, notes of a conversation, facts of its speakers."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from agent_support import harness, run, spec
from pentad.agent.memories import Memories
from pentad.agent.memory.base import Experience, Item, Memory, MemoryServices, Occasion, Scope
from pentad.agent.model_events import ModelAsked
from pentad.agent.spec import LongTermChoice, MemoryChoice
from pentad.choice import Choice, build
from pentad.errors import NotFound
from pentad.execution.backend import TextDelta
from pentad.testing.agents import scripted_models
from pentad.types import Message

MINE = Scope(tenant="a", agent="me")


@dataclass
class Model:
    """Answers by a table of what a question has in it; keeps what it was asked."""

    says: dict[str, str] = field(default_factory=dict)
    draws: dict[str, Sequence[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def think(self, system: str, text: str, max_tokens: int) -> str:
        self.asked.append(text)
        return next((said for part, said in self.says.items() if part in text), "none")

    async def sample(
        self, system: str, text: str, max_tokens: int, *, samples: int, temperature: float
    ) -> tuple[str, ...]:
        self.asked.append(text)
        drawn = tuple(self.draws[text])
        assert len(drawn) == samples
        assert temperature > 0
        return drawn


def opened(folder: pathlib.Path, written: str | Choice) -> Memory:
    models, _ = scripted_models([], embedder=True)
    services = MemoryServices(models=models, embedder="words", path=folder / "m.db")
    choice = Choice.of(written) if isinstance(written, str) else written
    memory: Memory = build("memory", choice).open(services)
    return memory


def turn(model: Model, run_id: str, goal: str, answer: str, history: Sequence[Message] = ()) -> Experience:
    return Experience(
        run_id=run_id,
        goal=goal,
        answer=answer,
        answered=True,
        think=model.think,
        sample=model.sample,
        history=tuple(history),
        text=f"{goal} -> {answer}",
    )


def recalled(
    memory: Memory, model: Model, goal: str, history: Sequence[Message] = (), k: int = 3
) -> list[str]:
    occasion = Occasion(goal=goal, think=model.think, history=tuple(history))
    return [r.item.text for r in run(memory.recall(occasion, k=k, scope=MINE))]


def answers(*values: int | str) -> list[str]:
    return [f"I count.\nanswer: {value}" if value != "" else "I do not know" for value in values]


# thoughts


@pytest.mark.row("mem-mot", "mechanism")
def test_a_thought_is_kept_only_where_the_answers_agree(tmp_path: pathlib.Path) -> None:
    memory = opened(tmp_path, "thoughts:samples=4,entropy=0.6")
    model = Model(
        draws={
            "how many eggs have 3 hens": answers(6, "6.0", 6, 5),
            "how many eggs have 9 hens": answers(1, 2, 3, 4),
            "how many eggs have 2 hens": answers("", 4, "", 4),
        }
    )
    for number, goal in enumerate(model.draws):
        run(memory.learn(turn(model, f"run_{number}", goal, "said"), MINE))
    kept = {i.text: (i.details["thought"], round(i.details["entropy"], 2)) for i in run(memory.items(MINE))}
    assert kept == {
        "how many eggs have 3 hens": ("I count.\nanswer: 6", 0.56),
        "how many eggs have 9 hens": ("", 1.39),
        # Two have no answer, and agree with none.
        "how many eggs have 2 hens": ("", 1.04),
    }
    found = [r.item.text for r in run(memory.query("how many eggs have 9 hens", k=5, scope=MINE))]
    assert found == ["Question: how many eggs have 3 hens\nI count.\nanswer: 6"]
    asked = len(model.asked)
    run(memory.learn(turn(model, "run_7", "how many eggs have 9 hens", "said"), MINE))
    assert len(model.asked) == asked
    memory.close()


@pytest.mark.row("mem-mot", "mechanism")
def test_unlabelled_questions_are_thought_about_ahead_and_the_model_chooses_among_them(
    tmp_path: pathlib.Path,
) -> None:
    file = tmp_path / "questions.txt"
    file.write_text("the train is late by how much\n\nthe bus is late by how much\nthe boat is late\n")
    memory = opened(
        tmp_path,
        Choice(name="thoughts", options={"samples": 2, "questions": str(file), "ahead": 2}),
    )
    lines = [line for line in file.read_text().splitlines() if line]
    model = Model(draws={line: answers(7, 7) for line in [*lines, "now"]})
    run(memory.learn(turn(model, "run_1", "now", "7"), MINE))
    assert [i.text for i in run(memory.items(MINE))] == ["now", *lines[:2]]
    run(memory.learn(turn(model, "run_2", "now", "7"), MINE))
    assert [i.text for i in run(memory.items(MINE))] == ["now", *lines]
    run(memory.write(Item(text="the bus is green"), MINE))
    model.says = {"New question: how late is the bus": "2, then 99 and 2"}
    told = recalled(memory, model, "how late is the bus", k=2)
    shown = model.asked[-1].splitlines()
    assert len(shown) == 5
    assert told == [f"Question: {shown[1].removeprefix('2. ')}\nI count.\nanswer: 7", "the bus is green"]
    # Where it chooses none there are only the facts.
    assert recalled(memory, Model(), "how late is the train", k=2) == ["the bus is green"]
    memory.close()
    with pytest.raises(NotFound, match=r"questions '/nope': No such file"):
        opened(tmp_path, "thoughts:questions=/nope")


@pytest.mark.row("mem-mot", "mechanism")
def test_thoughts_are_drawn_by_the_runs_own_model_in_its_budget_and_help_the_next(
    tmp_path: pathlib.Path,
) -> None:
    store = Choice(name="thoughts", options={"samples": 3})
    agent = spec(memory=MemoryChoice(store=store, long_term=LongTermChoice()))

    async def scenario() -> None:
        models, _ = scripted_models([], embedder=True)
        memories = Memories(MemoryServices(models=models, embedder="words", path=tmp_path / "m.db"))
        text = "first 2 then 2 more\nanswer: 4"
        thoughts = [TextDelta(text=text, choice=n) for n in range(3)]
        turns = [["4"], thoughts, ["1"], ["answer: 6"], thoughts]
        async with harness(tmp_path, turns, memory=memories) as h:
            first = await h.work(agent, "what is 2 and 2")
            second = await h.work(agent, "what is 2 and 4")
            assert (first.status, second.status) == ("answered", "answered")
            asked = [r.event for r in h.records(first.run_id) if isinstance(r.event, ModelAsked)]
            assert [(e.purpose, e.samples) for e in asked] == [("act", 1), ("remember", 3)]
            assert first.ledger.used.tokens > sum(e.prompt_tokens for e in asked)
            asked = [r.event for r in h.records(second.run_id) if isinstance(r.event, ModelAsked)]
            assert [(e.purpose, e.samples) for e in asked][:2] == [("remember", 1), ("act", 1)]
            shown = next(
                r
                for r in h.backend.requests
                if "what is 2 and 4" in (r.messages or ())[-1].content
                and "Notes from memory" in (r.messages or ())[-1].content
            )
            assert "Question: what is 2 and 2\nfirst 2 then 2 more" in (shown.messages or ())[-1].content
        memories.close()

    run(scenario())


# working memory


def said(*texts: str) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(role=roles[n % 2], content=text) for n, text in enumerate(texts)]  # type: ignore[arg-type]


@pytest.mark.row("mem-raise", "mechanism")
def test_notes_follow_the_conversation_and_a_later_value_takes_an_earlier_ones_place(
    tmp_path: pathlib.Path,
) -> None:
    memory = opened(tmp_path, "working-memory")
    model = Model(
        says={
            "user: A table for two": "* Guests: 2\nDay = Friday",
            "user: No, Saturday": "day: Saturday\nguests: none",
            "user: And a child's chair": "Extra_chair: yes, for a child",
        }
    )
    one = said("A table for two on Friday", "Which name?")
    two = said("A table for two on Friday", "Which name?", "No, Saturday", "Noted.")
    run(memory.learn(turn(model, "run_1", one[0].content, one[1].content), MINE))
    assert recalled(memory, model, "No, Saturday", one)[0] == "Guests: 2\nDay: Friday".lower().replace(
        "friday", "Friday"
    )
    run(memory.learn(turn(model, "run_2", "No, Saturday", "Noted.", one), MINE))
    assert "Notes:\nguests: 2\nday: Friday\n" in model.asked[-1]
    assert recalled(memory, model, "And?", two)[0] == "guests: 2\nday: Saturday"
    run(memory.learn(turn(model, "run_3", "And a child's chair", "Fine.", two), MINE))
    three = [*two, *said("And a child's chair", "Fine.")]
    assert recalled(memory, model, "Good", three)[0].splitlines()[-1] == "extra chair: yes, for a child"
    # A conversation that went on otherwise has its own notes; one that nobody had has none.
    assert recalled(memory, model, "Hm", one)[0] == "guests: 2\nday: Friday"
    assert not any("guests" in text for text in recalled(memory, model, "Hm", said("A table", "Hm")))
    asked = len(model.asked)
    run(memory.learn(turn(model, "run_3", "And a child's chair", "Fine.", two), MINE))
    assert len(model.asked) == asked
    memory.close()


@pytest.mark.row("mem-raise", "mechanism")
def test_where_the_slots_are_named_nothing_else_is_noted(tmp_path: pathlib.Path) -> None:
    choice = Choice(name="working-memory", options={"slots": ("day", "Guest_count")})
    memory = opened(tmp_path, choice)
    model = Model(says={"user: Friday": "Day: Friday\nmood: good\nguest count: 4"})
    run(memory.learn(turn(model, "run_1", "Friday for four", "Fine."), MINE))
    assert model.asked[-1].startswith("Names: day, Guest_count\nNotes:\nnone")
    assert (
        recalled(memory, model, "And?", said("Friday for four", "Fine."))[0] == "day: Friday\nguest count: 4"
    )
    memory.close()


@pytest.mark.row("mem-raise", "mechanism")
def test_a_turn_sees_its_notes_and_how_others_went_though_the_window_has_lost_both(
    tmp_path: pathlib.Path,
) -> None:
    agent = spec(
        memory=MemoryChoice(store=Choice(name="working-memory"), long_term=LongTermChoice(k=2)),
        instructions="You book tables.",
    )

    async def scenario() -> None:
        models, _ = scripted_models([], embedder=True)
        memories = Memories(MemoryServices(models=models, embedder="words", path=tmp_path / "m.db"))
        turns = [["A table, sure."], ["guests: 2"], ["Window seats."], ["seat: window"], ["ok"], ["none"]]
        async with harness(tmp_path, turns, memory=memories) as h:
            await h.work(agent, "a table for two")
            history = said("a table for two", "A table, sure.")
            other = await h.work(agent, "where may I sit")
            assert other.status == "answered"
            await h.work(agent, "a seat please", history=tuple(history))
            shown = next(
                m.content for r in h.backend.requests for m in r.messages or () if "a seat" in m.content
            )
            assert "Notes from memory:\n- guests: 2\n- " in shown
            assert "seat: window" not in shown
        memories.close()

    run(scenario())


# dialogue


@pytest.mark.row("plan-mpc-chatbot", "mechanism")
def test_facts_of_both_speakers_are_kept_and_found_by_what_a_message_means(tmp_path: pathlib.Path) -> None:
    memory = opened(tmp_path, "dialogue:facts=2")
    model = Model(
        says={
            "User: My dog Rex": "- User has a dog called Rex.\nAssistant likes cats.\nUser is kind.\n",
            "User: It rains": "The weather is bad.\nnone",
            "Last message: What is his name": "What is the name of the dog that the User has?",
        }
    )
    run(memory.learn(turn(model, "run_1", "My dog Rex barks", "I prefer cats."), MINE))
    run(memory.learn(turn(model, "run_2", "It rains", "Yes."), MINE))
    assert [i.text for i in run(memory.items(MINE))] == [
        "User has a dog called Rex.",
        "Assistant likes cats.",
    ]
    history = said("I walked the dog", "Nice.")
    assert recalled(memory, model, "What is his name", history, k=1) == ["User has a dog called Rex."]
    assert model.asked[-1].splitlines() == [
        "user: I walked the dog",
        "assistant: Nice.",
        "Last message: What is his name",
    ]
    asked = len(model.asked)
    run(memory.learn(turn(model, "run_1", "My dog Rex barks", "I prefer cats."), MINE))
    recalled(memory, model, "cats", k=1)
    assert len(model.asked) == asked
    memory.close()
