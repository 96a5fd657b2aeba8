"""The agents of examples/agents: each does with a scripted model what its first lines say."""

from __future__ import annotations

import asyncio
import json
import pathlib
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from agent_support import Harness, call, harness, run
from pentad.agent.catalogue import AgentCatalogue
from pentad.agent.events import Record
from pentad.agent.state import RunState
from pentad.agent.tool_events import ApprovalAsked, ToolReturned
from pentad.types import ToolCall

ROOT = pathlib.Path(__file__).parents[2]
AGENTS = ROOT / "examples" / "agents"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def returned(records: Sequence[Record]) -> list[ToolReturned]:
    return [record.event for record in records if isinstance(record.event, ToolReturned)]


async def asked(h: Harness, run_id: str) -> RunState:
    """The run once it waits for an approval."""
    async with asyncio.timeout(10), aclosing(h.runtime.events(run_id)) as records:
        async for record in records:
            if isinstance(record.event, ApprovalAsked):
                break
    return h.runtime.show(run_id)


@pytest.mark.parametrize("approved", [True, False])
def test_the_support_desk_pays_back_once_a_person_says_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, approved: bool
) -> None:
    paid = tmp_path / "refunds.jsonl"
    monkeypatch.setenv("SUPPORT_REFUNDS", str(paid))
    turns = [[call("order", number="A-17")], [call("refund", number="A-17", euros=40)], ["Done."]]

    async def scenario() -> None:
        catalogue = AgentCatalogue(patterns=[str(AGENTS)])
        async with harness(tmp_path, turns, agents=catalogue) as h:
            run_id = await h.runtime.start(catalogue.get("support"), "Order A-17 came broken.")
            state = await asked(h, run_id)
            (approval,) = state.pending.values()
            assert (approval.tool, paid.exists()) == ("refund", False)
            await h.runtime.answer(run_id, approval.approval_id, approved=approved)
            assert (await h.runtime.wait(run_id)).answer == "Done."
            looked_up, refund = returned(h.records(run_id))
            assert json.loads(looked_up.content)["paid"] == 40.0
            assert (refund.status == "ok") is approved

    run(scenario())
    lines = [json.loads(line) for line in paid.read_text().splitlines()] if paid.exists() else []
    assert [(line["order"], line["euros"]) for line in lines] == ([("A-17", 40.0)] if approved else [])


def test_the_repository_helper_finds_lines_and_reads_nothing_outside(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "repository"
    (place / "src").mkdir(parents=True)
    (place / ".git").mkdir()
    (place / "src" / "calls.py").write_text("import os\n\nMAX_TRIES = 3\n")
    (place / ".git" / "calls.py").write_text("MAX_TRIES = 9\n")
    (tmp_path / "secret.py").write_text("MAX_TRIES = 7\n")
    (place / "src" / "link.py").symlink_to(tmp_path / "secret.py")
    monkeypatch.chdir(place)
    turns = [
        [call("find", text="max_tries")],
        [call("read", path="src/calls.py", line=3)],
        [call("files", pattern="**/*.py")],
        [call("read", path="../secret.py")],
        [call("read", path="src/link.py")],
        [call("find", text="tries", pattern="../*.py")],
        [call("read", path=".git/calls.py")],
        ["In src/calls.py, line 3."],
    ]

    async def scenario() -> None:
        catalogue = AgentCatalogue(patterns=[str(AGENTS)])
        async with harness(tmp_path, turns, agents=catalogue) as h:
            state = await h.work(catalogue.get("repository"), "Where is the limit of tries?")
            assert state.answer == "In src/calls.py, line 3."
            found, *others = returned(h.records(state.run_id))
            assert found.content == "src/calls.py:3: MAX_TRIES = 3"
            assert [r.content for r in others[:2]] == ["3: MAX_TRIES = 3", "src/calls.py"]
            assert [r.status == "ok" for r in others[2:]] == [False] * 4
            assert not any(digit in r.content for r in others[2:] for digit in "79")

    run(scenario())


def test_the_researcher_gets_passages_with_their_files_and_answers_in_form(tmp_path: pathlib.Path) -> None:
    answer = '{"answer": "Down to 9 metres [harbour.md].", "sources": ["harbour.md"]}'
    turns = [[call("search", query="how deep may be dredged")], [answer]]

    async def scenario() -> None:
        catalogue = AgentCatalogue(patterns=[str(AGENTS)])
        async with harness(tmp_path, turns, agents=catalogue, embedder=True) as h:
            state = await h.work(catalogue.get("researcher"), "How deep may the harbour be dredged?")
            assert state.answer == answer
            (found,) = returned(h.records(state.run_id))
            assert "[harbour.md]" in found.content
            assert "down to 9 metres" in found.content
            assert h.backend.requests[-1].format.kind == "json_schema"

    run(scenario())


def test_the_office_gives_each_part_to_the_member_who_knows_it(tmp_path: pathlib.Path) -> None:
    def task(member: str, what: str, ident: str) -> ToolCall:
        return call("delegate", ident, member=member, task=what)

    turns = [
        [task("facts", "How many passengers a year has the ferry harbour?", "c1")],
        [call("search", query="passengers a year")],
        ["450,000 a year."],
        [task("figures", "0.12 * 450000", "c2")],
        [call("calculator", expression="0.12 * 450000")],
        ["54000"],
        ["It is 54,000 passengers."],
    ]

    async def scenario() -> None:
        catalogue = AgentCatalogue(patterns=[str(AGENTS)])
        async with harness(tmp_path, turns, agents=catalogue, embedder=True) as h:
            state = await h.work(catalogue.get("office"), "What is 12 percent of its yearly passengers?")
            assert state.answer == "It is 54,000 passengers."
            said = [r.content for r in returned(h.records(state.run_id))]
            assert ["450,000" in said[0], "54000" in said[1]] == [True, True]
            children = [h.records(child.run_id) for child in state.children.values()]
            tools = [[r.tool for r in returned(records)] for records in children]
            assert sorted(tools) == [["calculator"], ["search"]]

    run(scenario())


def test_each_example_names_a_command_that_runs_it() -> None:
    for path in AGENTS.glob("*.yaml"):
        if path.name != "shop.yaml":
            assert f"pentad agent run examples/agents/{path.name} " in path.read_text("utf-8")
