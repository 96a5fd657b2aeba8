"""Memories that learn: values of actions, merged and corrected notes, levels of rising cost."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence

import pytest

from agent_support import call, harness, run, spec
from pentad.agent.memories import Memories
from pentad.agent.memory.base import Experience, Item, Memory, MemoryServices, Scope, Think
from pentad.agent.spec import LongTermChoice, MemoryChoice
from pentad.agent.tools.functions import tool
from pentad.choice import Choice, build
from pentad.errors import InvalidRequest
from pentad.testing.agents import scripted_models

NOW = 1_700_000_000.0
MINE = Scope(tenant="a", agent="me")
Steps = Sequence[tuple[str, str]]


def opened(folder: pathlib.Path, written: str) -> Memory:
    models, _ = scripted_models([], embedder=True)
    clock = iter(range(10_000))
    services = MemoryServices(
        models=models, embedder="words", path=folder / "m.db", wall=lambda: NOW + next(clock)
    )
    memory: Memory = build("memory", Choice.of(written)).open(services)
    return memory


async def unasked(system: str, text: str, max_tokens: int) -> str:
    raise AssertionError(text)


async def undrawn(
    system: str, text: str, max_tokens: int, *, samples: int, temperature: float
) -> tuple[str, ...]:
    raise AssertionError(text)


def ended(run_id: str, *, answered: bool = True, steps: Steps = (), think: Think = unasked) -> Experience:
    return Experience(
        run_id=run_id,
        goal="buy red shoes",
        answer="done",
        answered=answered,
        think=think,
        sample=undrawn,
        steps=tuple(steps),
        text="buy red shoes -> done",
    )


# rememberer

GOOD = (("", "search red shoes"), ("list of shoes", "click shoes 3"), ("shoes 3", "buy"))
BAD = (("", "search red shoes"), ("list of shoes", "click shoes 9"), ("shoes 9", "buy"))


def values(memory: Memory) -> dict[str, float]:
    """The newest value of each case, by its last action."""
    kept = [item for item in run(memory.items(MINE)) if item.superseded_by is None]
    return {f"{i.details['seen']} / {i.details['action']}": i.details["value"] for i in kept}


@pytest.mark.row("mem-rememberer", "mechanism")
def test_values_are_those_of_q_learning_over_n_steps(tmp_path: pathlib.Path) -> None:
    memory = opened(tmp_path, "rememberer:discount=0.5,steps=2")
    run(memory.learn(ended("run_1", steps=GOOD), MINE))
    # The first step is two from the end: it has the value of the state that lies two steps ahead.
    assert values(memory) == {
        " / search red shoes": 0.25 * 1.0,
        "list of shoes / click shoes 3": 0.5,
        "shoes 3 / buy": 1.0,
    }
    run(memory.learn(ended("run_2", answered=False, steps=BAD), MINE))
    after = values(memory)
    assert after[" / search red shoes"] == pytest.approx((0.25 + 0.25 * 0.0) / 2)
    assert after["list of shoes / click shoes 9"] == after["shoes 9 / buy"] == 0.0
    assert after["list of shoes / click shoes 3"] == 0.5
    run(memory.learn(ended("run_1", steps=GOOD), MINE))
    assert values(memory) == after
    memory.close()


@pytest.mark.row("mem-rememberer", "mechanism")
def test_good_and_bad_examples_come_back_as_such(tmp_path: pathlib.Path) -> None:
    memory = opened(tmp_path, "rememberer")
    run(memory.learn(ended("run_1", steps=GOOD), MINE))
    run(memory.learn(ended("run_2", answered=False, steps=BAD), MINE))
    run(memory.write(Item(text="red shoes are in the cellar"), MINE))
    told = [r.item.text for r in run(memory.query("buy red shoes list of shoes", k=6, scope=MINE))]
    assert "Did well (0.90): for 'buy red shoes', after 'list of shoes': click shoes 3" in told
    assert "Did badly, avoid it (0.00): for 'buy red shoes', after 'list of shoes': click shoes 9" in told
    assert "red shoes are in the cellar" in told
    memory.close()


@pytest.mark.row("mem-rememberer", "mechanism")
def test_a_run_that_fails_and_one_that_succeeds_are_told_to_the_third(tmp_path: pathlib.Path) -> None:
    @tool(effects="none")
    def click(what: str) -> str:
        """Clicks."""
        if what == "nine":
            raise InvalidRequest("sold out")
        return "bought"

    agent = spec(
        tools=("click",),
        max_steps=2,
        memory=MemoryChoice(store=Choice(name="rememberer"), long_term=LongTermChoice()),
    )

    async def scenario() -> None:
        models, _ = scripted_models([], embedder=True)
        memories = Memories(MemoryServices(models=models, embedder="words", path=tmp_path / "m.db"))
        turns = [
            [call("click", what="nine")],
            [call("click", what="nine")],
            [call("click", what="three")],
            ["done"],
            ["done"],
        ]
        async with harness(tmp_path, turns, [click], memory=memories) as h:
            first = await h.work(agent, "buy red shoes")
            second = await h.work(agent, "buy red shoes")
            assert (first.status, second.status) == ("out_of_steps", "answered")
            await h.work(agent, "buy red shoes")
            shown = (h.backend.requests[-1].messages or ())[-1].content
            assert "Did well (0.90): for 'buy red shoes': click" in shown
            assert "Did badly, avoid it (0.00): for 'buy red shoes': click {\"what\":" in shown
        memories.close()

    run(scenario())


# rethink


class Judge:
    """Answers questions about notes by a table, and keeps what it was asked."""

    def __init__(self, says: dict[str, str]) -> None:
        self.says, self.asked = says, list[str]()

    async def __call__(self, system: str, text: str, max_tokens: int) -> str:
        self.asked.append(text)
        return next((said for part, said in self.says.items() if part in text), "OTHER")


def texts(memory: Memory) -> list[str]:
    return [item.text for item in run(memory.items(MINE)) if item.superseded_by is None]


@pytest.mark.row("mem-rethink", "mechanism")
def test_doubles_merge_and_of_two_that_contradict_the_newer_holds(tmp_path: pathlib.Path) -> None:
    memory = opened(tmp_path, "rethink:near=0.5")
    for ident, text in (("a", "the boat is red"), ("b", "the dog of Mia barks"), ("c", "milk is white")):
        run(memory.write(Item(text=text, id=ident, source="run_0"), MINE))
    run(memory.write(Item(text="the boat is blue", id="d", source="run_1"), MINE))
    run(memory.write(Item(text="the dog of Mia barks loud", id="e", source="run_1"), MINE))
    judge = Judge({"the boat is red": "CHANGED", "the dog of Mia barks\n": "Same."})
    run(memory.learn(ended("run_1", think=judge), MINE))
    assert texts(memory) == [
        "milk is white",
        "the boat is blue",
        "the dog of Mia barks loud",
        "buy red shoes -> done",
    ]
    links = {item.id: item.superseded_by for item in run(memory.items(MINE))}
    assert (links["a"], links["b"]) == ("d", "e")
    asked = len(judge.asked)
    run(memory.learn(ended("run_1", think=judge), MINE))
    assert len(judge.asked) == asked
    memory.close()


@pytest.mark.row("mem-rethink", "mechanism")
def test_many_near_items_become_one_that_is_linked_to_them(tmp_path: pathlib.Path) -> None:
    memory = opened(tmp_path, "rethink:near=0.5,gather=4,questions=20")
    for number in range(3):
        run(memory.write(Item(text=f"Mia likes tea sort {number}", id=f"t{number}", source="run_0"), MINE))
    run(memory.write(Item(text="Mia likes tea sort 3", id="t3", source="run_1"), MINE))
    judge = Judge({"- Mia likes tea sort 0": "Mia likes tea of four sorts, 0 to 3."})
    run(memory.learn(ended("run_1", think=judge), MINE))
    assert "Mia likes tea of four sorts, 0 to 3." in texts(memory)
    assert len(texts(memory)) == 2
    (whole,) = [item for item in run(memory.items(MINE)) if item.derived_from]
    assert sorted(whole.derived_from) == ["t0", "t1", "t2", "t3"]
    assert len(run(memory.forget(["t0"], MINE))) == 5
    memory.close()


@pytest.mark.row("mem-rethink", "mechanism")
def test_questions_of_a_memory_are_bounded_journaled_and_of_the_runs_budget(tmp_path: pathlib.Path) -> None:
    store = Choice(name="rethink", options={"near": 0.0, "questions": 2})
    agent = spec(tools=("remember",), memory=MemoryChoice(store=store, long_term=LongTermChoice()))

    async def scenario() -> None:
        models, _ = scripted_models([], embedder=True)
        memories = Memories(MemoryServices(models=models, embedder="words", path=tmp_path / "m.db"))
        memory = memories.get(store)
        assert memory is not None
        scope = Scope(tenant="default", agent="tester")
        for number in range(4):
            await memory.write(Item(text=f"note {number}"), scope)
        turns = [[call("remember", text="note of today")], ["Noted."], ["OTHER"], ["CHANGED"]]
        async with harness(tmp_path, turns, memory=memories) as h:
            state = await h.work(agent, "keep it")
            assert state.status == "answered"
            asked = [r.event for r in h.records(state.run_id) if r.kind == "model_asked"]
            assert [e.purpose for e in asked] == ["act", "act", "remember", "remember"]  # type: ignore[union-attr]
            superseded = [i for i in await memory.items(scope) if i.superseded_by is not None]
            assert [i.superseded_by for i in superseded] == [f"{state.run_id}:1:0"]
        memories.close()

    run(scenario())


# levels


@pytest.mark.row("fut-knowledge-levels", "mechanism")
def test_levels_are_searched_in_turn_until_one_has_enough(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "one.md").write_text("the harbour opens at noon\n")
    memory = opened(tmp_path, f'levels:enough=0.8,team=true,folder="{folder}"')
    run(memory.write(Item(text="Mia likes tea"), MINE))
    run(memory.write(Item(text="Liam likes milk"), Scope(tenant="a", agent="other")))
    run(memory.write(Item(text="the harbour opens at ten"), Scope(tenant="b")))

    def level(cue: str) -> tuple[str, str]:
        best = run(memory.query(cue, k=2, scope=MINE))[0]
        return best.level, best.item.text

    searched = memory.searched  # type: ignore[attr-defined]
    assert level("Mia likes tea") == ("own", "Mia likes tea")
    assert searched == {"own": 1, "team": 0, "documents": 0}
    assert level("Liam likes milk") == ("team", "Liam likes milk")
    assert searched == {"own": 2, "team": 1, "documents": 0}
    assert level("when the harbour opens") == ("documents", "the harbour opens at noon")
    assert searched == {"own": 3, "team": 2, "documents": 1}
    memory.close()


@pytest.mark.row("fut-knowledge-levels", "mechanism")
def test_a_document_that_comes_while_it_is_used_is_found_at_once(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    memory = opened(tmp_path, f'levels:folder="{folder}"')
    assert run(memory.query("when the ferry leaves", k=2, scope=MINE)) == []
    (folder / "ferry.txt").write_text("the ferry leaves at six\n")
    begun = time.perf_counter()
    (found,) = run(memory.query("when the ferry leaves", k=2, scope=MINE))
    assert time.perf_counter() - begun < 5
    assert (found.item.text, found.item.source) == ("the ferry leaves at six", "ferry.txt")
    memory.close()
