"""JournalSaver: the checkpointer contract by LangGraph's own suite, a real graph, and hostile rows."""

from __future__ import annotations

import asyncio
import pathlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any, TypedDict

import pytest

from pentad.agent.journal import Journal
from pentad.agent.rows import JournalDamaged
from pentad.errors import InvalidRequest

conformance = pytest.importorskip("langgraph.checkpoint.conformance", reason="no langgraph here")
from langgraph.checkpoint.base import empty_checkpoint  # noqa: E402
from langgraph.graph import END, START, StateGraph  # noqa: E402
from langgraph.types import interrupt  # noqa: E402

from pentad.agent.langgraph import JournalSaver  # noqa: E402

THREAD: dict[str, Any] = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


class State(TypedDict):
    """A text that grows."""

    text: str


def graph(saver: JournalSaver) -> Any:
    """Asks a person, then says what it was told."""
    building: Any = StateGraph(State)
    building.add_node("ask", lambda state: {"text": state["text"] + interrupt("more?")})
    building.add_node("shout", lambda state: {"text": state["text"].upper()})
    building.add_edge(START, "ask")
    building.add_edge("ask", "shout")
    building.add_edge("shout", END)
    return building.compile(checkpointer=saver)


def test_langgraphs_own_conformance_suite_passes_whole(tmp_path: pathlib.Path) -> None:
    made = 0

    @conformance.checkpointer_test(name="JournalSaver")
    async def checkpointer() -> AsyncIterator[JournalSaver]:
        nonlocal made
        made += 1
        with JournalSaver(tmp_path / f"{made}.db") as saver:
            yield saver

    report = asyncio.run(conformance.validate(checkpointer))
    failed = {name: result.failures for name, result in report.results.items() if result.failures}
    assert failed == {}
    assert report.passed_all()
    assert sum(result.tests_passed for result in report.results.values()) > 50


def test_an_interrupted_graph_goes_on_in_another_process(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "journal.db"
    with JournalSaver(path) as saver:
        paused = graph(saver).invoke({"text": "a"}, THREAD)
        assert paused["__interrupt__"][0].value == "more?"
    code = (
        "import sys; from langgraph.types import Command; from test_langgraph_saver import *\n"
        "with JournalSaver(sys.argv[1]) as saver: print(graph(saver).invoke(Command(resume='b'), THREAD))"
    )
    here = pathlib.Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=here, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "{'text': 'AB'}", done.stderr
    with JournalSaver(path) as saver:
        history = list(graph(saver).get_state_history(THREAD))
        assert [state.values.get("text") for state in history] == ["AB", "ab", "a", None]


def test_the_file_is_the_journals_own(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    with JournalSaver(tmp_path / "journal.db") as saver:
        graph(saver).invoke({"text": "a"}, THREAD)
        assert graph(saver).get_state(THREAD).next == ("ask",)
    assert journal.runs() == []
    journal.close()


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("graph_checkpoints", "data = x'80'"),
        ("graph_checkpoints", "metadata_kind = 'pickle'"),
        ("graph_values", "kind = 'pickle', data = x'80049529'"),
        ("graph_writes", "data = x'c0'"),
    ],
)
def test_rows_that_others_changed_are_never_decoded(tmp_path: pathlib.Path, table: str, change: str) -> None:
    path = tmp_path / "journal.db"
    with JournalSaver(path) as saver:
        graph(saver).invoke({"text": "a"}, THREAD)
    db = sqlite3.connect(path)
    db.execute(f"UPDATE {table} SET {change}")
    db.commit()
    db.close()
    damaged = pytest.raises(JournalDamaged, match=f"a row of {table} of thread 't' was changed")
    with JournalSaver(path) as saver, damaged:
        saver.get_tuple(THREAD)


def test_what_is_written_twice_counts_once(tmp_path: pathlib.Path) -> None:
    with JournalSaver(tmp_path / "journal.db") as saver:
        config = saver.put(THREAD, empty_checkpoint(), {"source": "input", "step": -1}, {})
        saver.put_writes(config, [("text", "first")], "task")
        saver.put_writes(config, [("text", "second")], "task")
        found = saver.get_tuple(THREAD)
        assert found is not None
        assert found.pending_writes == [("task", "text", "first")]


def test_pruning_keeps_what_delta_channels_are_built_from(tmp_path: pathlib.Path) -> None:
    with JournalSaver(tmp_path / "journal.db") as saver:
        config = THREAD
        for step in range(6):
            metadata: Any = {
                "source": "loop",
                "step": step,
                "counters_since_delta_snapshot": {"log": (1, step - 2)} if step > 2 else {},
            }
            config = saver.put(config, empty_checkpoint(), metadata, {})
        saver.prune(["t"])
        assert [found.metadata["step"] for found in saver.list(THREAD)] == [5, 4, 3, 2]


def test_mistakes_are_named(tmp_path: pathlib.Path) -> None:
    with JournalSaver(tmp_path / "journal.db") as saver:
        with pytest.raises(InvalidRequest, match="no strategy 'newest'"):
            saver.prune(["t"], strategy="newest")
        with pytest.raises(InvalidRequest, match="writes belong to a checkpoint"):
            saver.put_writes(THREAD, [], "task")
