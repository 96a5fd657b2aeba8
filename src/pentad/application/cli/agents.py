"""Verbs about agents: agent run and list; runs list, show, resume, cancel, explain."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, EMBEDDING, ENGINE, settings_of, with_settings
from pentad.application.cli.output import duration, plain, print_json, print_table
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    from pentad.agent.journal import Journal
    from pentad.application.config import Settings

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as runs list shows it.")]


def register(app: typer.Typer) -> None:
    agent = typer.Typer(help="Run an agent in this process.", no_args_is_help=True)
    agent.command("run")(agent_run)
    agent.command("list")(agent_list)
    app.add_typer(agent, name="agent", rich_help_panel="Agents")
    runs = typer.Typer(help="Look at agent runs, and take them up again or end them.", no_args_is_help=True)
    runs.command("list")(runs_list)
    runs.command("show")(runs_show)
    runs.command("resume")(runs_resume)
    runs.command("cancel")(runs_cancel)
    runs.command("explain")(runs_explain)
    app.add_typer(runs, name="runs", rich_help_panel="Agents")


@with_settings(COMMON, EMBEDDING, ENGINE)
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
    settings = _serving_only(settings_of(flags, config, quiet=True), model or spec.model)
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


@with_settings(COMMON)
def runs_list(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    status: Annotated[str | None, typer.Option("--status", help="Only runs in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="Most runs to list.", min=1)] = 50,
    json: JsonOption = False,
) -> None:
    """List agent runs, newest first, of all tenants of this machine's journal."""
    from pentad.application.cli.trace import row_summary

    with _journal(flags, config) as journal:
        where, values = ("status = ?", (status,)) if status else ("1", ())
        rows = journal.runs(where=where, values=values, limit=limit)
    if json:
        print_json([row_summary(row) for row in rows])
        return
    lines = [
        (
            row.id,
            row.status,
            row.agent,
            datetime.fromtimestamp(row.started_s).strftime("%Y-%m-%d %H:%M:%S"),
            duration(row.ended_s - row.started_s) if row.ended_s else "-",
            _first_line(row.goal),
        )
        for row in rows
    ]
    columns = ("run", "status", "agent", "started", "took", "goal")
    print_table(columns, lines, empty="no runs yet; pentad agent run starts one")


@with_settings(COMMON)
def runs_show(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Show what each model call was asked, word for word.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show every step of a run, from its journal."""
    from pentad.agent.explain import explain
    from pentad.agent.state import fold
    from pentad.application.cli.trace import ending, printer, prompt_lines, run_summary

    with _journal(flags, config) as journal:
        records = journal.read(run)
        asked = journal.prompts(run) if prompts else []
    state = fold(records)
    if json:
        shown = {"prompts": [dataclasses.asdict(prompt) for prompt in asked]} if prompts else {}
        print_json(run_summary(state) | {"events": [record.to_json() for record in records]} | shown)
        return
    if prompts:
        for prompt in asked:
            typer.echo(prompt_lines(prompt))
        return
    show = printer()
    for record in records:
        show(record)
    typer.echo(ending(state, explain(records)))


@with_settings(COMMON)
def runs_explain(
    flags: dict[str, Any], config: pathlib.Path | None, run: RunId, json: JsonOption = False
) -> None:
    """Attribute a run's time, tokens and decisions to the five layers."""
    from pentad.agent.explain import explain
    from pentad.application.cli.trace import bar_rows, decision_line, explanation_summary

    with _journal(flags, config) as journal:
        explanation = explain(journal.read(run), journal.earlier(journal.run(run)))
    if json:
        print_json(explanation_summary(explanation))
        return
    whole = explanation.active_s or 1.0
    rows: list[tuple[object, ...]] = []
    for share in explanation.shares:
        rows.append((share.layer, duration(share.seconds), f"{share.seconds / whole:.1%}", ""))
        rows += [("", duration(s), f"{s / whole:.1%}", f"  {name}") for name, s in share.parts]
    rows.append(
        ("unattributed", duration(explanation.residual_s), f"{explanation.residual_fraction:.1%}", "")
    )
    print_table(("layer", "time", "share", "part"), rows, empty="nothing happened yet")
    typer.echo(
        f"\n{duration(explanation.active_s)} at work, {duration(explanation.offline_s)} between processes; "
        f"{explanation.model_calls} model calls, {explanation.prompt_tokens} prompt tokens "
        f"({explanation.cached_tokens} cached), {explanation.completion_tokens} generated; "
        f"{explanation.tool_calls} tool calls; cost {explanation.cost:g}"
    )
    if explanation.waterfall:
        typer.echo("")
        columns = ("step", "what", "from", "took", "expected", "bound by", "")
        print_table(columns, bar_rows(explanation), empty="")
    if explanation.decisions:
        typer.echo("\ndecisions")
        for decision in explanation.decisions:
            typer.echo(f"  {decision_line(decision)}")


@with_settings(COMMON, EMBEDDING, ENGINE)
def runs_resume(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    model: Annotated[str | None, typer.Option("--model", help="Model to think with.")] = None,
    json: JsonOption = False,
) -> None:
    """Go on with a run that a stopped process left behind. Effects already made are not repeated."""
    import asyncio

    from pentad.agent.state import fold
    from pentad.application.cli.running import resume_run

    with _journal(flags, config) as journal:
        state = fold(journal.read(run))
    settings = _serving_only(settings_of(flags, config, quiet=True), model or state.spec.model)
    raise typer.Exit(asyncio.run(resume_run(settings, run, tenant=state.tenant, as_json=json)))


@with_settings(COMMON)
def runs_cancel(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    url: Annotated[
        str, typer.Option("--url", help="Server that works on it.", envvar="PENTAD_URL")
    ] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None, typer.Option("--api-key", envvar="PENTAD_API_KEY", help="Its key.")
    ] = None,
) -> None:
    """End a run: through the server that works on it, or in the journal when nobody does."""
    import asyncio

    from pentad.application.cli.running import cancel_run

    with _journal(flags, config) as journal:
        asyncio.run(cancel_run(journal, run, url, api_key))
    typer.echo(f"{run} cancelled")


def _serving_only(settings: Settings, model: str) -> Settings:
    """The settings with one model, local or remote; as they are when none is named."""
    remote = tuple(backend for backend in settings.backends if backend.name == model)
    if not model:
        return settings
    return settings.model_copy(update={"models": () if remote else (model,), "backends": remote})


@contextmanager
def _journal(flags: dict[str, Any], config: pathlib.Path | None) -> Iterator[Journal]:
    from pentad.agent.journal import Journal
    from pentad.agent.prompt_store import PromptRetention

    settings = settings_of(flags, config, quiet=True)
    retention = PromptRetention(days=settings.prompt_days, labels=settings.prompt_labels)
    journal = Journal(settings.journal_path, retention=retention)
    try:
        yield journal
    finally:
        journal.close()


def _first_line(text: str) -> str:
    line = plain(" ".join(text.split()))
    return line if len(line) <= 60 else line[:59] + "…"
