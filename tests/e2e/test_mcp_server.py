"""Our agents as MCP tools: for the SDK's client over HTTP, in both eras of the protocol, and over stdio."""

from __future__ import annotations

import asyncio
import pathlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import ElicitResult

from agent_support import call, run, spec
from gateway_support import Live, eventually, scripted
from pentad.agent.spec import AgentSpec
from pentad.agent.tools.functions import tool
from process_support import environment, home_with

SUM = call("calculator", expression="2 + 3")


@asynccontextmanager
async def client(live: Live, key: str = "", **options: Any) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with (
        create_mcp_http_client(headers=headers) as http,
        Client(streamable_http_client(f"{live.url}/mcp", http_client=http), **options) as made,
    ):
        yield made


def helper(**fields: Any) -> AgentSpec:
    return spec(name="helper", description="Helps.", tools=("calculator",), **fields)


@pytest.mark.row("tool-mcp", "mechanism")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_agent_is_a_tool_whose_steps_are_progress(mode: str) -> None:
    told: list[str] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append(message or "")

    async def scenario() -> None:
        with scripted([SUM], ["It is 5."], agents={"helper": helper()}) as live:
            async with client(live, mode=mode) as made:
                (listed,) = (await made.list_tools()).tools
                assert (listed.name, listed.description) == ("helper", "Helps.")
                result = await made.call_tool("helper", {"goal": "add"}, progress_callback=progress)
                assert not result.is_error
                assert result.content[0].text == "It is 5."
                assert result.structured_content["status"] == "answered"
                assert live.gateway.services.agents.show(result.structured_content["run_id"]).goal == "add"

    run(scenario())
    assert told == ["calls calculator", "step 1 is done", "step 2 is done"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("approve", [True, False])
def test_what_a_run_asks_is_put_to_the_clients_person(mode: str, approve: bool) -> None:
    asked: list[str] = []

    async def elicited(_: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"approve": approve, "note": "not now"})

    async def scenario() -> None:
        with scripted([SUM], ["Done."], agents={"helper": helper(ask=("calculator",))}) as live:
            async with client(live, mode=mode, elicitation_callback=elicited) as made:
                result = await made.call_tool("helper", {"goal": "add"})
                assert result.content[0].text == "Done."
                state = live.gateway.services.agents.show(result.structured_content["run_id"])
                assert state.exchanges[0].results[0].status == ("ok" if approve else "denied")
                assert ("not now" in state.exchanges[0].results[0].content) is not approve

    run(scenario())
    assert asked == ['May calculator be called with {"expression": "2 + 3"}?']


def test_a_client_that_cannot_ask_is_told_how_the_run_goes_on() -> None:
    async def scenario() -> None:
        with scripted([SUM], ["Done."], agents={"helper": helper(ask=("*",))}) as live:
            async with client(live) as made:
                result = await made.call_tool("helper", {"goal": "add"})
                assert result.is_error
                run_id = result.structured_content["run_id"]
                assert f"pentad runs approve {run_id}" in result.content[0].text
                assert live.gateway.services.agents.show(run_id).status == "waiting"

    run(scenario())


def test_arguments_are_checked_here_and_unknown_agents_are_errors_of_the_protocol() -> None:
    async def scenario() -> None:
        with scripted(["x"], agents={"helper": helper()}) as live:
            async with client(live) as made:
                for wrong in ({}, {"goal": 1}, {"goal": ""}, {"goal": "a", "model": "b"}):
                    result = await made.call_tool("helper", wrong)
                    assert result.is_error, wrong
                with pytest.raises(MCPError, match="no agent 'stranger'; agents are: helper"):
                    await made.call_tool("stranger", {"goal": "a"})
            assert live.backend is not None
            assert live.backend.requests == []

    run(scenario())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_call_that_is_cancelled_cancels_its_run(mode: str) -> None:
    begun = asyncio.Event()

    @tool(effects="none")
    async def wait_long() -> str:
        """Waits."""
        await asyncio.sleep(60)
        return "late"

    async def scenario() -> None:
        agents = {"helper": spec(name="helper", tools=("wait_long",))}
        with scripted([call("wait_long")], ["x"], agents=agents) as live:
            runtime = live.gateway.services.agents
            assert runtime is not None
            runtime.toolbox.add(wait_long)
            async with client(live, mode=mode) as made:

                async def noted(*_: Any) -> None:
                    begun.set()

                work = asyncio.ensure_future(
                    made.call_tool("helper", {"goal": "wait"}, progress_callback=noted)
                )
                await begun.wait()
                work.cancel()
                await asyncio.wait([work])
                await asyncio.to_thread(eventually, lambda: runtime.list()[0].status == "cancelled")

    run(scenario())


def test_tenants_do_not_meet_and_no_key_means_no_session() -> None:
    async def scenario() -> None:
        keys = ("ann:first", "bob:second")
        with scripted(["Hi."], repeat=True, agents={"helper": helper()}, api_keys=keys) as live:
            async with client(live, "first", mode="legacy") as made:
                result = await made.call_tool("helper", {"goal": "hello"})
                runtime = live.gateway.services.agents
                assert runtime is not None
                assert [row.tenant for row in runtime.list(tenant="ann")] == ["ann"]
                assert runtime.list(tenant="bob") == []
                session = made.session
                (ours,) = _sessions(live)
                for key, status in (("second", 404), ("first", 200), ("", 401)):
                    async with create_mcp_http_client(headers=_headers(key, ours)) as http:
                        body = {"jsonrpc": "2.0", "id": 9, "method": "tools/list"}
                        assert (await http.post(f"{live.url}/mcp", json=body)).status_code == status, key
                assert session is not None
                assert not result.is_error

    run(scenario())


def _sessions(live: Live) -> list[str]:
    (route,) = [route for route in live.app.routes if getattr(route, "path", "") == "/mcp"]
    return list(route.endpoint._manager._server_instances)  # type: ignore[attr-defined]


def _headers(key: str, session: str) -> dict[str, str]:
    sent = {"mcp-session-id": session, "accept": "application/json, text/event-stream"}
    return {**sent, "authorization": f"Bearer {key}"} if key else sent


def test_foreign_names_and_origins_get_nothing() -> None:
    async def scenario() -> None:
        with scripted(["x"], agents={"helper": helper()}) as live:
            for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
                async with create_mcp_http_client(headers=headers) as http:
                    assert (await http.post(f"{live.url}/mcp", json={})).status_code == 403

    run(scenario())


@pytest.mark.row("tool-mcp", "effect")
def test_an_agent_file_is_served_over_stdio(tmp_path: pathlib.Path, smollm2_path: pathlib.Path) -> None:
    file = tmp_path / "helper.yaml"
    file.write_text(
        "name: helper\ndescription: Says a few words.\nplanner: {name: react, max_plan: 0}\nmax_tokens: 16\n"
    )
    home = home_with(tmp_path / "home", {"smollm2-135m": smollm2_path})
    program = str(pathlib.Path(sys.executable).with_name("pentad"))
    words = ["agent", "mcp", str(file), "--model", "smollm2-135m"]
    parameters = StdioServerParameters(command=program, args=words, env=environment(home))

    async def scenario() -> None:
        async with Client(stdio_client(parameters)) as made:
            assert [listed.name for listed in (await made.list_tools()).tools] == ["helper"]
            result = await made.call_tool("helper", {"goal": "Say hello."})
            assert result.structured_content["status"] in ("answered", "failed")
            assert result.content[0].text

    run(scenario(), 120)
