"""Verbs about agents: agent run, list, show, check, approve; those of protocols are beside."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli import protocols
from pentad.application.cli.attachments import Files, Images, Sounds, attached
from pentad.application.cli.options import (
    AGENTS,
    COMMON,
    ENGINE,
    MODELS,
    TELEMETRY,
    settings_of,
    with_settings,
)
from pentad.application.cli.output import note, plain, print_json, print_table
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    from pentad.agent.catalogue import AgentEntry
    from pentad.agent.spec import AgentSpec
    from pentad.application.config import Settings

Agent = Annotated[
    str, typer.Argument(metavar="FILE|NAME", help="Agent file, or name of an agent that agent list shows.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Allow everything without asking.")]


def register(app: typer.Typer) -> None:
    agent = typer.Typer(help="Run agents in this process, and look after their files.", no_args_is_help=True)
    agent.command("run")(agent_run)
    agent.command("list")(agent_list)
    agent.command("show")(agent_show)
    agent.command("check")(agent_check)
    agent.command("approve")(agent_approve)
    agent.command("login")(agent_login)
    protocols.register(agent)
    app.add_typer(agent, name="agent", rich_help_panel="Agents")


@with_settings(COMMON, MODELS, AGENTS, ENGINE, TELEMETRY)
def agent_run(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    agent: Agent,
    goal: Annotated[str | None, typer.Argument(help="What to do; read from stdin when absent.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model to think with.")] = None,
    image: Images = None,
    audio: Sounds = None,
    file: Files = None,
    json: JsonOption = False,
) -> None:
    """Run an agent until it answers, showing each step. Exit 1 when it ends without an answer.

    Ctrl-C leaves the run as it is; runs resume goes on with it. Where a person must approve a call, or
    a program must be started for the first time, the terminal is asked; without one the run is left
    waiting, and the program is not started.
    """
    import asyncio

    from pentad.application.cli.approving import allow_programs
    from pentad.application.cli.running import run_agent

    settings = settings_of(flags, config, quiet=True)
    chosen = chosen_agent(settings, agent)
    if goal is None:
        if sys.stdin.isatty():
            raise InvalidRequest("no goal", hint="give it after the agent, or pipe it in", param="goal")
        goal = sys.stdin.read()
    if not goal.strip():
        raise InvalidRequest("the goal is empty", hint="say what the agent is to do", param="goal")
    allow_programs(settings, chosen.spec, agent)
    others = of_members(chosen.spec)
    settings = serving_only(chosen.settings, model or chosen.spec.model, *others)
    # What is served alone is the default, by whatever name it was asked for.
    own = model or chosen.spec.model
    spec = dataclasses.replace(chosen.spec, model=own if others else "")
    from pentad.content import joined

    text, media = joined((*attached(image, audio, file), goal))
    raise typer.Exit(asyncio.run(run_agent(settings, spec, text, media=media, as_json=json)))


@with_settings(COMMON, AGENTS)
def agent_list(flags: dict[str, Any], config: pathlib.Path | None, json: JsonOption = False) -> None:
    """List the agents that can be started by name, and files that should hold one but do not."""
    entries = _entries(settings_of(flags, config, quiet=True))
    if json:
        print_json([entry_summary(entry) for entry in entries])
        return
    rows = []
    for entry in entries:
        spec = entry.spec
        tools = ", ".join(_short(tool) for tool in spec.tools) if spec else ""
        about = f"error: {entry.error}" if entry.error else spec.description if spec else ""
        rows.append((entry.name, spec.planner.name if spec else None, tools, _short(entry.source), about))
    print_table(("name", "planner", "tools", "source", "about"), rows, empty="no agents")


@with_settings(COMMON, AGENTS)
def agent_show(
    flags: dict[str, Any], config: pathlib.Path | None, agent: Agent, json: JsonOption = False
) -> None:
    """Print an agent as a file would say it: what differs from the defaults; with --json all of it."""
    import yaml

    from pentad.agent.codec import encode
    from pentad.agent.loading import written

    spec = chosen_agent(settings_of(flags, config, quiet=True), agent).spec
    if json:
        print_json(encode(spec))
    else:
        typer.echo(plain(yaml.safe_dump(written(spec), sort_keys=False, allow_unicode=True)), nl=False)


def agent_check(
    files: Annotated[list[pathlib.Path], typer.Argument(metavar="FILE...", help="Agent files.")],
    json: JsonOption = False,
) -> None:
    """Check agent files: every key, planner and tool options, Python tools. Exit 1 when one is wrong.

    MCP servers are not started; agent approve shows what those offer.
    """
    from pentad.agent.loading import load_agent
    from pentad.agent.spec_check import check_agent
    from pentad.agent.tools.files import ToolFiles
    from pentad.errors import PentadError

    found = []
    for file in files:
        name = error = None
        try:
            spec = load_agent(file)
            name = spec.name
            check_agent(spec, ToolFiles())
        except PentadError as problem:
            error = str(problem).removeprefix(f"{file.name}: ")
        found.append({"file": str(file), "name": name, "error": error})
    if json:
        print_json(found)
    else:
        for one in found:
            typer.echo(plain(f"{one['file']}: {one['error'] or 'agent ' + str(one['name']) + ' is sound'}"))
    if any(one["error"] for one in found):
        raise typer.Exit(1)


@with_settings(COMMON, AGENTS)
def agent_approve(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    agent: Agent,
    tools: Annotated[
        list[str] | None, typer.Argument(metavar="[TOOL]...", help="Only these, named server__tool.")
    ] = None,
    yes: Yes = False,
    json: JsonOption = False,
) -> None:
    """Look at what an agent's MCP servers offer and accept it: new and changed tools, programs to start."""
    from pentad.application.cli.approving import approve

    settings = settings_of(flags, config, quiet=True)
    reviewed = approve(settings, chosen_agent(settings, agent).spec, agent, tools or [], yes=yes, quiet=json)
    if json:
        print_json(reviewed)
    elif not reviewed:
        note("the agent has no MCP servers; nothing to approve")


@with_settings(COMMON, AGENTS)
def agent_login(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    agent: Agent,
    server: Annotated[
        str | None, typer.Argument(metavar="[SERVER]", help="Only this MCP server of the agent.")
    ] = None,
    port: Annotated[
        int,
        typer.Option("--port", min=1, max=65535, help="Of this machine, where the browser comes back to."),
    ] = 8976,
    forget: Annotated[bool, typer.Option("--forget", help="Forget the sign-in instead.")] = False,
) -> None:
    """Sign in to an agent's MCP servers that want OAuth; its runs use and renew what came of it."""
    import asyncio

    from pentad.application.cli import login

    settings = settings_of(flags, config, quiet=True)
    spec = chosen_agent(settings, agent).spec
    if forget:
        typer.echo(plain(", ".join(login.forget(settings, spec, server)) or "nobody had signed in"))
        return
    typer.echo(plain(", ".join(asyncio.run(login.sign_in(settings, spec, server, port=port)))))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An agent that a person named, and the settings under which its file may bring its tools."""

    spec: Any
    settings: Any


def chosen_agent(settings: Settings, agent: str) -> Chosen:
    """The agent of a file, or of a name that the settings know. Raises NotFound, InvalidRequest."""
    from pentad.agent.catalogue import catalogue_of
    from pentad.agent.loading import SUFFIXES, load_agent

    path = pathlib.Path(agent)
    if path.suffix in SUFFIXES or path.is_file():
        with_file = settings.model_copy(update={"agents": (*settings.agents, str(path.absolute()))})
        return Chosen(spec=load_agent(path), settings=with_file)
    return Chosen(spec=catalogue_of(settings.agents).get(agent), settings=settings)


def entry_summary(entry: AgentEntry) -> dict[str, Any]:
    """An agent, or a file that should hold one, as data."""
    spec = entry.spec
    return {
        "name": entry.name,
        "description": spec.description if spec else "",
        "model": spec.model if spec else "",
        "tools": list(spec.tools) if spec else [],
        "planner": spec.planner.name if spec else None,
        "source": entry.source,
        "error": entry.error,
    }


def _entries(settings: Settings) -> list[AgentEntry]:
    from pentad.agent.catalogue import catalogue_of
    from pentad.agent.spec_check import check_agent

    catalogue = catalogue_of(settings.agents)
    catalogue.check = lambda spec: check_agent(spec, catalogue.tool_files)
    return catalogue.entries()


def _short(path: str) -> str:
    """A path below the working directory as it would be typed there."""
    here = f"{pathlib.Path().absolute()}/"
    return f"./{path.removeprefix(here)}" if path.startswith(here) else path


def of_members(spec: AgentSpec) -> tuple[str, ...]:
    """The models that the members of a team name, each once."""
    from pentad.agent.spec import team_of

    return tuple(dict.fromkeys(member.model for member in team_of(spec)[1:] if member.model))


def serving_only(settings: Settings, model: str, *others: str) -> Settings:
    """The settings with one model, local or remote, and those of a team's members.

    Without a name for the first, what the settings serve stays, and the others come on top.
    """
    named = {backend.name for backend in settings.backends}
    wanted = tuple(dict.fromkeys(name for name in (model, *others) if name))
    local = tuple(name for name in wanted if name not in named)
    if not model:
        more = tuple(name for name in local if name not in settings.models)
        return settings.model_copy(update={"models": (*settings.models, *more)}) if more else settings
    remote = tuple(backend for backend in settings.backends if backend.name in wanted)
    return settings.model_copy(update={"models": local, "backends": remote})
