"""The Agent Client Protocol: the SDK's client, as an editor has it, drives our agents."""

from __future__ import annotations

import asyncio
import pathlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from acp import RequestError, connect_to_agent, resource_block, run_agent, spawn_agent_process, text_block
from acp.helpers import embedded_text_resource
from acp.schema import (
    AllowedOutcome,
    ClientCapabilities,
    DeniedOutcome,
    FileSystemCapabilities,
    McpServerStdio,
    ReadTextFileResponse,
    RequestPermissionResponse,
    WriteTextFileResponse,
)

from agent_support import Harness, call, harness, run, spec
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.functions import tool
from pentad.application.protocols.acp.agent import EditorAgent
from process_support import PENTAD, environment, home_with

SUM = call("calculator", expression="2 + 3")
FILES = ClientCapabilities(fs=FileSystemCapabilities(read_text_file=True, write_text_file=True))


class Editor:
    """An editor with files in memory and a person who says what was set."""

    def __init__(self, says: str = "allow") -> None:
        self.files: dict[str, str] = {}
        self.says = says
        self.asked: list[Any] = []
        self.told: list[Any] = []
        self.begun = asyncio.Event()

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        self.told.append(update)
        if update.session_update == "tool_call":
            self.begun.set()

    async def request_permission(
        self, session_id: str, tool_call: Any, options: Any, **_: Any
    ) -> RequestPermissionResponse:
        self.asked.append(tool_call)
        if self.says == "cancelled":
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=self.says))

    async def read_text_file(self, session_id: str, path: str, **_: Any) -> ReadTextFileResponse:
        if path not in self.files:
            raise RequestError.resource_not_found(path)
        return ReadTextFileResponse(content=self.files[path])

    async def write_text_file(
        self, session_id: str, path: str, content: str, **_: Any
    ) -> WriteTextFileResponse:
        self.files[path] = content
        return WriteTextFileResponse()

    def on_connect(self, conn: Any) -> None:
        pass

    def text(self) -> str:
        """What the agent said."""
        return "".join(
            update.content.text for update in self.told if update.session_update == "agent_message_chunk"
        )

    def kinds(self) -> list[str]:
        return [update.session_update for update in self.told]


@asynccontextmanager
async def connected(h: Harness, agent: AgentSpec, editor: Editor) -> AsyncIterator[Any]:
    """The client's side of a connection to the agent over a pair of sockets."""
    ours, theirs = socket.socketpair()
    our_reader, our_writer = await asyncio.open_connection(sock=ours)
    their_reader, their_writer = await asyncio.open_connection(sock=theirs)
    serving = asyncio.create_task(run_agent(EditorAgent(h.runtime, agent), our_writer, our_reader))
    conn = connect_to_agent(editor, their_writer, their_reader)
    try:
        yield conn
    finally:
        await conn.close()
        their_writer.close()
        await asyncio.wait([serving], timeout=5)
        our_writer.close()


async def opened(conn: Any, folder: pathlib.Path, capabilities: Any = FILES, **options: Any) -> str:
    answer = await conn.initialize(protocol_version=1, client_capabilities=capabilities)
    assert answer.protocol_version == 1
    return str((await conn.new_session(cwd=str(folder), **{"mcp_servers": [], **options})).session_id)


def test_a_prompt_is_a_run_whose_calls_and_answer_the_editor_shows(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        editor = Editor()
        agent = spec(tools=("calculator",))
        turns = [[SUM], ["It is 5."], ["Yes, 5."]]
        async with harness(tmp_path, turns) as h, connected(h, agent, editor) as conn:
            session = await opened(conn, tmp_path)
            file = resource_block(embedded_text_resource("file:///a.py", "x = 1"))
            answer = await conn.prompt(session_id=session, prompt=[text_block("add"), file])
            assert answer.stop_reason == "end_turn"
            assert editor.kinds() == ["tool_call", "tool_call_update", "agent_message_chunk"]
            begun, ended = editor.told[:2]
            assert begun.tool_call_id == ended.tool_call_id
            assert (begun.title, begun.raw_input) == ("calculator", {"expression": "2 + 3"})
            assert ended.status == "completed"
            assert editor.text() == "It is 5."
            (row,) = h.runtime.list()
            assert row.goal == "add\n<file uri='file:///a.py'>\nx = 1\n</file>"
            # The next prompt of the session knows what was said.
            await conn.prompt(session_id=session, prompt=[text_block("sure?")])
            said = [str(message.content) for message in h.backend.requests[-1].messages]
            assert any("It is 5." in one for one in said)

    run(scenario(), 60)


def test_the_agent_reads_and_writes_what_the_editor_holds(tmp_path: pathlib.Path) -> None:
    turns = [
        [call("editor_read_file", path="a.py")],
        [call("editor_write_file", path="a.py", content="x = 2")],
        [call("editor_read_file", path="../secret")],
        [call("editor_read_file", path="gone.py")],
        ["Done."],
    ]

    file = str(tmp_path.resolve() / "a.py")

    async def scenario() -> None:
        editor = Editor()
        editor.files[file] = "x = 1"
        async with harness(tmp_path, turns) as h:
            async with connected(h, spec(), editor) as conn:
                session = await opened(conn, tmp_path)
                await conn.prompt(session_id=session, prompt=[text_block("go")])
            state = h.runtime.show(h.runtime.list()[0].id)
            results = [exchange.results[0] for exchange in state.exchanges[:4]]
            assert [result.status for result in results] == ["ok", "ok", "failed", "failed"]
            assert results[0].content == "x = 1"
            assert "is not in the project's folder" in results[2].content
            assert editor.files == {file: "x = 2"}
            # Writing is asked about, reading is not.
            assert [asked.title for asked in editor.asked] == ["editor_write_file"]
            assert editor.asked[0].kind == "edit"

    run(scenario(), 60)


def test_an_editor_without_files_gives_the_agent_none(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        editor = Editor()
        async with harness(tmp_path, [["Hi."]]) as h, connected(h, spec(), editor) as conn:
            session = await opened(conn, tmp_path, capabilities=None)
            await conn.prompt(session_id=session, prompt=[text_block("hello")])
            assert h.backend.requests[0].tools == ()

    run(scenario(), 60)


@pytest.mark.parametrize(("says", "status"), [("allow", "ok"), ("deny", "denied"), ("cancelled", "denied")])
def test_calls_are_made_only_if_the_person_allows_them(
    tmp_path: pathlib.Path, says: str, status: str
) -> None:
    async def scenario() -> None:
        editor = Editor(says)
        agent = spec(tools=("calculator",), ask=("calculator",))
        async with harness(tmp_path, [[SUM], ["Done."]]) as h, connected(h, agent, editor) as conn:
            session = await opened(conn, tmp_path)
            await conn.prompt(session_id=session, prompt=[text_block("add")])
            assert [asked.raw_input for asked in editor.asked] == [{"expression": "2 + 3"}]
            state = h.runtime.show(h.runtime.list()[0].id)
            assert state.exchanges[0].results[0].status == status

    run(scenario(), 60)


def test_cancelling_ends_the_run_and_the_turn(tmp_path: pathlib.Path) -> None:
    @tool(effects="none")
    async def wait_long() -> str:
        """Waits."""
        await asyncio.sleep(60)
        return "late"

    async def scenario() -> None:
        editor = Editor()
        agent = spec(tools=("wait_long",))
        turns = [[call("wait_long")]]
        async with harness(tmp_path, turns, [wait_long]) as h, connected(h, agent, editor) as conn:
            session = await opened(conn, tmp_path)
            work = asyncio.ensure_future(conn.prompt(session_id=session, prompt=[text_block("wait")]))
            await editor.begun.wait()
            with pytest.raises(RequestError):
                await conn.prompt(session_id=session, prompt=[text_block("and this")])
            await conn.cancel(session_id=session)
            assert (await work).stop_reason == "cancelled"
            assert h.runtime.list()[0].status == "cancelled"

    run(scenario(), 60)


def test_a_session_is_taken_up_by_another_process(tmp_path: pathlib.Path) -> None:
    async def first() -> str:
        async with harness(tmp_path, [["Hello Ann."]]) as h, connected(h, spec(), Editor()) as conn:
            session = await opened(conn, tmp_path)
            await conn.prompt(session_id=session, prompt=[text_block("I am Ann")])
            return session

    async def second(session: str) -> None:
        editor = Editor()
        async with harness(tmp_path, [["Ann."]]) as h, connected(h, spec(), editor) as conn:
            await conn.initialize(protocol_version=1)
            with pytest.raises(RequestError):
                await conn.load_session(cwd=str(tmp_path), session_id="ses_none", mcp_servers=[])
            await conn.load_session(cwd=str(tmp_path), session_id=session, mcp_servers=[])
            await conn.prompt(session_id=session, prompt=[text_block("Who am I?")])
            assert editor.kinds() == ["user_message_chunk", "agent_message_chunk", "agent_message_chunk"]
            said = [str(message.content) for message in h.backend.requests[-1].messages]
            assert any("I am Ann" in one for one in said)

    run(second(run(first(), 60)), 60)


def test_servers_of_the_editor_are_named_and_not_started(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        editor = Editor()
        canary = tmp_path / "canary"
        server = McpServerStdio(name="evil", command="touch", args=[str(canary)], env=[])
        async with harness(tmp_path, [["Hi."]]) as h, connected(h, spec(), editor) as conn:
            session = await opened(conn, tmp_path, mcp_servers=[server])
            await conn.prompt(session_id=session, prompt=[text_block("hello")])
            assert editor.text().startswith("(The editor's MCP servers are not used: evil.")
        assert not canary.exists()

    run(scenario(), 60)


def test_the_command_serves_an_agent_file(tmp_path: pathlib.Path, smollm2_path: pathlib.Path) -> None:
    file = tmp_path / "helper.yaml"
    file.write_text("name: helper\nplanner: {name: react, max_plan: 0}\nmax_tokens: 16\n")
    home = home_with(tmp_path / "home", {"smollm2-135m": smollm2_path})
    words = ["agent", "acp", str(file), "--model", "smollm2-135m"]

    async def scenario() -> None:
        editor = Editor()
        async with spawn_agent_process(editor, str(PENTAD), *words, env=environment(home)) as (conn, _):
            session = await opened(conn, tmp_path)
            answer = await conn.prompt(session_id=session, prompt=[text_block("Say hello.")])
            assert answer.stop_reason == "end_turn"
            assert editor.text()

    run(scenario(), 180)
