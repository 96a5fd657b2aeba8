"""The command line of approvals: waiting runs, and programs and tools of MCP servers."""

from __future__ import annotations

import asyncio
import io
import json
import pathlib
import sys

import pytest

from agent_support import Harness, call, run, spec
from cli_support import Pentad, pentad_
from pentad.agent.spec import AgentSpec, McpServer
from pentad.agent.tool_events import ApprovalAsked
from pentad.agent.tools.functions import tool
from pentad.agent.tools.pins import ToolPins, command_line
from pentad.application.cli.running import answer_at_terminal, resume_command
from pentad.application.config_loading import load_settings

__all__ = ["pentad_"]


@tool
def order(lamps: int) -> str:
    """Orders lamps."""
    return f"ordered {lamps}"


def left_waiting(count: int = 1) -> str:
    """A run in the journal of this home that waits for its approvals, with nobody at work on it."""
    calls = [call("order", ident=str(i), lamps=i) for i in range(count)]

    async def scenario() -> str:
        path = load_settings().journal_path
        h = Harness(path.parent, [calls], [order], journal=path.name)
        run_id = await h.runtime.start(spec(tools=("order",), ask=("order",)), "lamps")
        seen = 0
        async for record in h.runtime.events(run_id):
            seen += isinstance(record.event, ApprovalAsked)
            if seen == count:
                break
        await h.runtime.close()
        return run_id

    return run(scenario())


@pytest.mark.parametrize(
    ("tools", "command"),
    [
        (("calculator",), "pentad runs resume run_1"),
        (("/a/shop.py:price",), "pentad runs resume run_1 --agents FILE (its agent file)"),
    ],
)
def test_what_resumes_a_run_of_python_tools_names_agents(tools: tuple[str, ...], command: str) -> None:
    assert resume_command(AgentSpec(name="x", tools=tools), "run_1") == command


def test_a_run_that_nobody_works_on_is_answered_in_the_journal(pentad_: Pentad) -> None:
    run_id = left_waiting()
    assert json.loads(pentad_("runs", "list", "--status", "waiting", "--json").out)[0]["id"] == run_id
    assert "waits for approval apr_" in pentad_("runs", "show", run_id).out
    done = pentad_("runs", "approve", run_id)
    assert (done.status, done.out) == (0, f"approved: order in {run_id}\n")
    assert f"pentad runs resume {run_id} goes on with it" in done.err
    again = pentad_("runs", "deny", run_id)
    assert again.status == 2
    assert "does not wait for any approval" in again.err


def test_one_of_several_questions_is_named(pentad_: Pentad) -> None:
    run_id = left_waiting(2)
    which = pentad_("runs", "deny", run_id)
    assert which.status == 2
    assert "asks 2 questions" in which.err
    approval = which.err.split("name one: ")[1].split(" ")[0]
    assert pentad_("runs", "deny", run_id, approval, "--note", "enough").status == 0
    assert pentad_("runs", "approve", run_id, "apr_none").status == 2
    assert pentad_("runs", "approve", run_id, "--input", "[1]").status == 2
    assert pentad_("runs", "approve", run_id).status == 0


def test_a_person_at_the_terminal_gives_values(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"properties": {"street": {"type": "string"}, "number": {"type": "integer"}}}
    asked = ApprovalAsked(
        step=1,
        index=0,
        approval_id="a",
        tool="t",
        arguments="{}",
        asked_s=0.0,
        kind="input",
        message="Where?",
        schema=schema,
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n12\n7\n"))
    answer = answer_at_terminal(asked)
    assert (answer.approve, answer.input) == (True, {"street": "12", "number": 7})
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert not answer_at_terminal(asked).approve


def test_a_person_at_the_terminal_judges_changed_tools(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ApprovalAsked(
        step=1,
        index=-1,
        approval_id="a",
        tool="srv",
        arguments='{"add": {"description": "Adds.\\u202e"}}',
        asked_s=0.0,
        kind="tools",
        message="MCP server 'srv' lists other tools than were accepted: add has changed",
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n\n"))
    assert answer_at_terminal(asked).approve
    assert not answer_at_terminal(asked).approve
    said = capsys.readouterr().err
    assert "add has changed" in said
    assert '"description": "Adds.\\u202e"' in said


def agent_file(folder: pathlib.Path, code: str) -> pathlib.Path:
    server = {"command": sys.executable, "args": ["-c", code]}
    (folder / "mine.json").write_text(json.dumps({"name": "mine", "mcpServers": {"s": server}}))
    return folder / "mine.json"


def test_a_program_is_not_started_until_a_person_allowed_it(
    tmp_path: pathlib.Path, pentad_: Pentad, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    file = agent_file(tmp_path, f"open({str(canary)!r}, 'w')")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    refused = pentad_("agent", "run", str(file), "go")
    assert refused.status == 1
    assert f"allow it with pentad agent approve {file}" in refused.err
    assert pentad_("agent", "approve", str(file)).status == 1
    assert not canary.exists()


def test_an_allowed_command_line_is_that_one_only(tmp_path: pathlib.Path) -> None:
    pins, server = ToolPins(tmp_path / "pins.json"), McpServer(command="npx", args=("-y", "files"))
    pins.allow_start(server)
    again = ToolPins(tmp_path / "pins.json")
    assert again.may_start(server)
    assert command_line(server) == "npx -y files"
    for other in (
        McpServer(command="npx", args=("-y", "evil")),
        McpServer(command="npx", args=("-y", "files"), env={"LD_PRELOAD": "evil.so"}),
        McpServer(command="npm", args=("-y", "files")),
    ):
        assert not again.may_start(other)


def test_what_one_process_accepts_another_sees_at_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pins.json"
    serving, person, server = ToolPins(path), ToolPins(path), McpServer(command="npx")
    assert serving.blocked(server, {"add": "1"}) == {}
    assert serving.blocked(server, {"add": "2"}) == {"add": "has changed"}
    person.approve(server, {"add": "2"}, only=["add"])
    person.allow_start(server)
    assert serving.blocked(server, {"add": "2"}) == {}
    assert serving.may_start(server)


def test_concurrent_acceptances_are_all_kept(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        def accept(i: int) -> None:
            ToolPins(tmp_path / "pins.json").approve(McpServer(command=f"c{i}"), {"t": str(i)})

        await asyncio.gather(*(asyncio.to_thread(accept, i) for i in range(8)))

    run(scenario())
    pins = ToolPins(tmp_path / "pins.json")
    assert all(pins.known(McpServer(command=f"c{i}")) for i in range(8))
