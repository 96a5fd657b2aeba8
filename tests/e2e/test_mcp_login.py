"""MCP servers that want OAuth: a person signs in once, runs use and renew it, and never begin it."""

from __future__ import annotations

import asyncio
import json
import pathlib
import re
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
import uvicorn
from mcp_oauth_server import Issuer, make

from agent_support import call, harness, run, spec
from pentad.agent.limits import RuntimeLimits
from pentad.agent.spec import McpOAuth, McpServer
from pentad.agent.state import RunState
from pentad.application.cli.login import Terminal
from pentad.errors import Conflict, Forbidden
from process_support import PENTAD, environment


@asynccontextmanager
async def guarded(issuer: Issuer) -> AsyncIterator[str]:
    """The URL of a server that wants a token, on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = make(origin, issuer).streamable_http_app()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        try:
            yield f"{origin}/mcp"
        finally:
            server.should_exit = True
            await task


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def sign_in(file: pathlib.Path, home: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`pentad agent login` with a browser that follows the page which the command shows."""
    port = str(free_port())
    process = await asyncio.create_subprocess_exec(
        str(PENTAD), "agent", "login", str(file), "--port", port, *words,
        env=environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    shown = ""
    async for line in process.stderr:
        shown += line.decode()
        if found := re.search(r"sign in at (\S+)", line.decode()):
            async with httpx2.AsyncClient(follow_redirects=True) as browser:
                assert "You may close this page" in (await browser.get(found[1])).text
    out, _ = await process.communicate()
    return subprocess.CompletedProcess([], process.returncode or 0, out.decode(), shown)


def agent_file(folder: pathlib.Path, url: str) -> pathlib.Path:
    file = folder / "adder.json"
    file.write_text(json.dumps({"name": "adder", "mcpServers": {"srv": {"url": url}}}))
    return file


async def use(folder: pathlib.Path, url: str, logins: pathlib.Path | None) -> RunState:
    """A run that adds by the server's tool."""
    turns = [[call("srv__add", a=2, b=3)], ["5"]]
    async with harness(folder, turns, limits=RuntimeLimits(logins_path=logins)) as h:
        return await h.work(spec(mcp_servers={"srv": McpServer(url=url)}))


@pytest.mark.row("tool-mcp", "mechanism")
def test_a_person_signs_in_once_and_runs_use_and_renew_it(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        issuer, home = Issuer(), tmp_path / "home"
        async with guarded(issuer) as url:
            before = await use(tmp_path, url, None)
            assert before.status == "failed"
            assert "MCP server 'srv' wants somebody to sign in" in (before.error or "")
            assert "pentad agent login" in (before.error or "")
            # A run looks for no authorization server: nothing was registered.
            assert issuer.clients == {}

            file = agent_file(tmp_path, url)
            done = await sign_in(file, home)
            assert (done.returncode, done.stdout) == (0, "srv\n"), done.stderr
            kept = home / "mcp-logins.json"
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600

            after = await use(tmp_path, url, kept)
            assert after.exchanges[0].results[0].content == "5"
            assert issuer.given == {"authorization_code": 1, "refresh_token": 0}

            # Expired: the next run renews it, at the place that the sign-in found, without asking anybody.
            whole = json.loads(kept.read_text())
            (entry,) = whole.values()
            entry["tokens"]["expires_s"] = 1.0
            kept.write_text(json.dumps(whole))
            renewed = await use(tmp_path, url, kept)
            assert renewed.exchanges[0].results[0].content == "5"
            assert issuer.given == {"authorization_code": 1, "refresh_token": 1}

            # No longer accepted: the run ends and says what to do; it does not begin a sign-in.
            secrets.extend([*issuer.access, *issuer.refresh])
            issuer.access.clear()
            clients = dict(issuer.clients)
            refused = await use(tmp_path, url, kept)
            assert refused.status == "failed"
            assert "pentad agent login" in (refused.error or "")
            assert issuer.clients == clients

            assert (await sign_in(file, home, "--forget")).stdout == "srv\n"
            assert (await sign_in(file, home, "--forget")).stdout == "nobody had signed in\n"

    secrets: list[str] = []
    run(scenario(), 180)
    journal = b"".join(path.read_bytes() for path in tmp_path.glob("journal*"))
    assert secrets
    assert not any(secret.encode() in journal for secret in secrets)


def test_a_browser_is_led_to_safe_addresses_only_and_comes_back_to_its_path() -> None:
    async def scenario() -> None:
        port = free_port()
        async with Terminal(port) as person:
            with pytest.raises(Conflict, match="--port"):
                await Terminal(port).__aenter__()
            for url in ("file:///etc/passwd", "javascript:alert(1)", "http://10.0.0.1/authorize"):
                with pytest.raises(Forbidden, match="not https"):
                    await person.show(url)
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as browser:
                assert (await browser.get("/other?code=evil")).status_code == 404
                assert (await browser.get("/callback?code=c&state=s")).status_code == 200
            result = await person.result()
            assert (result.code, result.state) == ("c", "s")
        async with Terminal(port) as person:
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as browser:
                await browser.get("/callback?error=access_denied")
            with pytest.raises(Forbidden, match="access_denied"):
                await person.result()

    run(scenario(), 60)


def test_a_client_secret_is_named_and_never_written() -> None:
    with pytest.raises(ValueError, match="write \\$\\{NAME\\}"):
        McpOAuth(client_id="a", client_secret="s3cret")
