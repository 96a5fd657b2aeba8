"""Verbs about agents: agent run, list."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, ENGINE, MODELS, settings_of, with_settings
from pentad.application.cli.output import print_json, print_table
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    from pentad.application.config import Settings


def register(app: typer.Typer) -> None:
    agent = typer.Typer(help="Run an agent in this process.", no_args_is_help=True)
    agent.command("run")(agent_run)
    agent.command("list")(agent_list)
    app.add_typer(agent, name="agent", rich_help_panel="Agents")


@with_settings(COMMON, MODELS, ENGINE)
def agent_run(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    agent: Annotated[str, typer.Argument(metavar="FILE|NAME", help="Agent file, or a shipped agent's name.")],
    goal: Annotated[str | None, typer.Argument(help="What to do; read from stdin when absent.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model to think with.")] = None,
    json: JsonOption = False,
) -> None:
    """Run an agent until it answers, showing each step. Exit 1 when it ends without an answer.

    Ctrl-C leaves the run as it is; runs resume goes on with it.
    """
    import asyncio

    from pentad.agent.loading import load_agent
    from pentad.application.cli.running import run_agent

    spec = load_agent(agent)
    if goal is None:
        if sys.stdin.isatty():
            raise InvalidRequest("no goal", hint="give it after the agent, or pipe it in", param="goal")
        goal = sys.stdin.read()
    settings = serving_only(settings_of(flags, config, quiet=True), model or spec.model)
    # What is served alone is the default, by whatever name it was asked for.
    spec = dataclasses.replace(spec, model="")
    raise typer.Exit(asyncio.run(run_agent(settings, spec, goal, as_json=json)))


def agent_list(json: JsonOption = False) -> None:
    """List the agents that come with Pentad."""
    from pentad.agent.loading import load_agent, ready

    agents = [load_agent(name) for name in ready()]
    if json:
        print_json([{"name": a.name, "tools": list(a.tools), "planner": a.planner.name} for a in agents])
    else:
        rows = [(a.name, a.planner.name, ", ".join(a.tools)) for a in agents]
        print_table(("name", "planner", "tools"), rows, empty="none is shipped")


def serving_only(settings: Settings, model: str) -> Settings:
    """The settings with one model, local or remote; as they are when none is named."""
    remote = tuple(backend for backend in settings.backends if backend.name == model)
    if not model:
        return settings
    return settings.model_copy(update={"models": () if remote else (model,), "backends": remote})
