"""Tiered contexts: recent turns whole, older ones shortened, the oldest summed up, all of them kept by id."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import pytest
from test_agent_context import GOAL, said, wanted

from agent_support import FREE, call, harness, run, spec
from pentad.agent.context_builders.base import Built, ContextInput
from pentad.agent.model_events import Compacted
from pentad.agent.state import RunState
from pentad.agent.tool_events import ToolReturned
from pentad.choice import Choice, build
from pentad.types import Message

TIERED = Choice(name="tiered", options={"recent_fraction": 0.5, "older": 2, "short_tokens": 16})


def built(given: ContextInput, choice: Choice = TIERED) -> Built:
    made: Built = run(build("context", choice).build(given))
    return made


def after(state: RunState, made: Built) -> RunState:
    """The state as the event leaves it."""
    event = made.compacted
    assert event is not None
    assert event.left is not None
    return replace(
        state, dropped_turns=event.dropped_turns, summary=event.summary, left=event.left.behind(state.left)
    )


def test_recent_turns_are_whole_older_ones_shortened_and_the_oldest_told_by_id() -> None:
    made = built(wanted([20] * 6, limit=100))
    assert said(made)[1:-1] == ["turn4", "reply4", "turn5", "reply5"]
    note = made.messages[-1].content
    assert "Turns t1 to t2 are left out.\nOlder turns, shortened:\n[t3] " in note
    assert "\n[t4] " in note
    assert "The tool earlier" not in note
    assert made.compacted is not None
    assert made.compacted.left is not None
    assert [turn.id for turn in made.compacted.left.turns] == ["t1", "t2", "t3", "t4"]
    whole = made.compacted.left.turns[3]
    assert whole.text == f"user: turn3 {'w ' * 20}\nassistant: reply3"
    assert len(whole.short.split()) < 20


def test_what_leaves_later_goes_on_with_the_ids_and_what_was_older_becomes_oldest() -> None:
    first = wanted([20] * 6, limit=100, overflow="summarise")
    one = built(first)
    assert one.messages[-1].content.startswith("Earlier, in short: summary of ")
    assert "Turns t1 to t2 are summed up above." in one.messages[-1].content
    # Until the next cut the prompt has the same words.
    again = replace(first, state=after(first.state, one))
    assert built(again).messages == one.messages
    assert built(again).compacted is None
    longer = wanted([20] * 9, limit=100, overflow="summarise")
    two = built(replace(longer, state=after(first.state, one)))
    assert two.compacted is not None
    assert two.compacted.left is not None
    assert [turn.id for turn in two.compacted.left.turns] == ["t5", "t6", "t7"]
    assert two.compacted.left.summed == 5
    assert "[t6] " in two.messages[-1].content


@pytest.mark.parametrize("limit", range(8, 60, 4))
def test_notes_give_way_where_there_is_no_room_for_them(limit: int) -> None:
    made = built(wanted([20] * 6, limit=limit))
    assert made.tokens <= limit
    assert made.messages[-1].content.endswith(GOAL)


def test_the_sentences_nearest_to_the_goal_stay() -> None:
    given = wanted([2] * 3, limit=50)
    text = (
        "It rained all day long and we stayed in. " * 2
        + "The goal itself is the red boat. "
        + "Then we ate. " * 6
    )
    long = replace(given.draft.turns[0], messages=(Message(role="user", content=text),))
    draft = replace(given.draft, turns=(long, *given.draft.turns[1:]))
    made = built(replace(given, draft=draft))
    assert made.compacted is not None
    assert made.compacted.left is not None
    assert "The goal itself is the red boat." in made.compacted.left.turns[0].short


def test_the_model_brings_a_turn_back_by_its_id_and_a_restart_sees_the_same(tmp_path: pathlib.Path) -> None:
    history = [
        Message(role=role, content=f"{role} says {place}: " + "word " * 20)  # type: ignore[arg-type]
        for place in range(8)
        for role in ("user", "assistant")
    ]
    agent = spec(context=TIERED, tools=("earlier",), planner=FREE, max_tokens=8)
    turns = [[call("earlier", id="t9")], [call("earlier", id="[t1]")], ["done"]]

    async def scenario() -> None:
        async with harness(tmp_path, turns, context_length=260) as h:
            state = await h.work(agent, GOAL, history=history)
            assert state.answer == "done"
            asked = (h.backend.requests[0].messages or ())[-1].content
            assert "\n[t5] " in asked
            assert "The tool earlier shows one whole." in asked
            records = h.records(state.run_id)
            wrong, right = [r.event for r in records if isinstance(r.event, ToolReturned)]
            assert wrong.status != "ok"
            assert "no earlier turn 't9'" in wrong.content
            assert right.content.startswith("user: user says 0: word word")
            assert "assistant: assistant says 0: " in right.content
            prompts = [r.messages for r in h.backend.requests]
        cut = next(n for n, r in enumerate(records) if isinstance(r.event, ToolReturned))
        async with harness(tmp_path / "again", turns[1:], context_length=260) as h:
            for record in records[: cut + 1]:
                await h.journal.append(state.run_id, record.event)
            await h.runtime.resume(state.run_id)
            again = await h.runtime.wait(state.run_id)
            assert again.answer == "done"
            assert [r.messages for r in h.backend.requests] == prompts[1:]
            kept = [r.event for r in h.records(state.run_id) if isinstance(r.event, Compacted)]
            assert kept == [r.event for r in records if isinstance(r.event, Compacted)]

    run(scenario())
