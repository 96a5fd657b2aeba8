"""Verbs that serve agents to other programs over standard input and output: agent mcp, agent acp."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import (
    AGENTS,
    COMMON,
    ENGINE,
    MODELS,
    TELEMETRY,
    number,
    settings_of,
    with_settings,
)
from pentad.errors import NotFound

if TYPE_CHECKING:
    from pentad.agent.spec import AgentSpec
    from pentad.application.config import Settings

Agent = Annotated[
    str, typer.Argument(metavar="FILE|NAME", help="Agent file, or name of an agent that agent list shows.")
]
Model = Annotated[str | None, typer.Option("--model", help="Model to think with.")]


def register(agent: typer.Typer) -> None:
    agent.command("mcp")(agent_mcp)
    agent.command("acp")(agent_acp)
    agent.command("jobs")(agent_jobs)


@with_settings(COMMON, MODELS, AGENTS, ENGINE, TELEMETRY)
def agent_mcp(flags: dict[str, Any], config: pathlib.Path | None, agent: Agent, model: Model = None) -> None:
    """Serve an agent as a tool of an MCP server over standard input and output, for any MCP client.

    pentad serve has all agents at /mcp as well.
    """
    import asyncio

    settings, spec = _chosen(flags, config, agent, model)
    asyncio.run(_mcp(settings, spec))


@with_settings(COMMON, MODELS, AGENTS, ENGINE, TELEMETRY)
def agent_acp(flags: dict[str, Any], config: pathlib.Path | None, agent: Agent, model: Model = None) -> None:
    """Serve an agent to an editor over standard input and output, by the Agent Client Protocol.

    Needs the extra acp. Files are read and written through the editor, which asks before each write.
    """
    import asyncio
    import importlib.util

    if importlib.util.find_spec("acp") is None:
        raise NotFound("the Agent Client Protocol is not installed", hint='pip install "pentad[acp]"')
    settings, spec = _chosen(flags, config, agent, model)
    asyncio.run(_acp(settings, spec))


def agent_jobs(
    functions: Annotated[
        list[str], typer.Argument(metavar="FILE:FUNCTION...", help="Functions that may be called as jobs.")
    ],
    folder: Annotated[pathlib.Path, typer.Option("--folder", help="Where jobs are kept.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8100,
    at_once: Annotated[int, number("--at-once", "Jobs that run at the same time.", least=1, most=1024)] = 1,
    key_env: Annotated[
        str | None, typer.Option("--key-env", help="Environment variable with the key to be sent.")
    ] = None,
) -> None:
    """Do jobs for agents elsewhere: functions of Python files, each job in a process of its own.

    The tool remote of an agent submits jobs, waits for them and cancels them.
    """
    import os

    import uvicorn

    from pentad.application.job_server import job_app, job_functions

    if key_env is not None and not os.environ.get(key_env):
        raise NotFound(f"the environment variable {key_env!r} is not set", hint="set it or drop --key-env")
    if key_env is None and host not in ("127.0.0.1", "::1", "localhost"):
        raise NotFound("others would reach the job server without a key", hint="give --key-env")
    app = job_app(job_functions(functions), folder, at_once=at_once, key=os.environ.get(key_env or "", ""))
    uvicorn.run(app, host=host, port=port, log_level="warning")


def _chosen(
    flags: dict[str, Any], config: pathlib.Path | None, agent: str, model: str | None
) -> tuple[Settings, AgentSpec]:
    """The agent to serve, and the settings that serve its models only."""
    from pentad.application.cli.agents import chosen_agent, of_members, serving_only

    settings = settings_of(flags, config, quiet=True)
    chosen = chosen_agent(settings, agent)
    others = of_members(chosen.spec)
    own = model or chosen.spec.model
    spec = dataclasses.replace(chosen.spec, model=own if others else "")
    return serving_only(chosen.settings, own, *others), spec


async def _mcp(settings: Settings, spec: AgentSpec) -> None:
    from mcp.server.stdio import stdio_server

    from pentad.application.protocols.mcp_server import AgentTools
    from pentad.application.wiring import build

    async with build(settings) as services, stdio_server() as (read, write):
        assert services.agents is not None, "an agent's settings run agents"
        server = AgentTools(services.agents, only=spec).server()
        await server.run(read, write, server.create_initialization_options())


async def _acp(settings: Settings, spec: AgentSpec) -> None:
    from acp import run_agent

    from pentad.application.protocols.acp.agent import EditorAgent
    from pentad.application.wiring import build

    async with build(settings) as services:
        assert services.agents is not None, "an agent's settings run agents"
        driven: Any = EditorAgent(services.agents, spec)  # the SDK's protocol has methods that are optional
        await run_agent(driven)
