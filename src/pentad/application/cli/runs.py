"""Verbs about runs: list, show, explain, resume, cancel, approve, deny."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.agents import of_members, serving_only
from pentad.application.cli.client import ServerClient
from pentad.application.cli.data import open_journal, register_runs
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
from pentad.application.cli.output import counted, duration, note, plain, print_json, print_table
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    from pentad.agent.journal import Journal
    from pentad.application.cli.running import Answer

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as runs list shows it.")]
ApprovalId = Annotated[
    str | None,
    typer.Argument(metavar="[APPROVAL]", help="Which question; not needed when it is the only one."),
]
Note = Annotated[str, typer.Option("--note", help="Why; the model is told it when the call is denied.")]
Url = Annotated[str, typer.Option("--url", help="Server that works on it.", envvar="PENTAD_URL")]
ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="PENTAD_API_KEY", help="Its key.")]
LOCAL = "http://127.0.0.1:8000"


def register(app: typer.Typer) -> None:
    from pentad.application.cli.billing import runs_audit, runs_bill
    from pentad.application.cli.reruns import runs_fork, runs_replay

    runs = typer.Typer(help="Look at agent runs, and take them up again or end them.", no_args_is_help=True)
    runs.command("list")(runs_list)
    runs.command("show")(runs_show)
    runs.command("resume")(runs_resume)
    runs.command("cancel")(runs_cancel)
    runs.command("approve")(runs_approve)
    runs.command("deny")(runs_deny)
    runs.command("fork")(runs_fork)
    runs.command("replay")(runs_replay)
    runs.command("explain")(runs_explain)
    runs.command("bill")(runs_bill)
    runs.command("audit")(runs_audit)
    register_runs(runs)
    app.add_typer(runs, name="runs", rich_help_panel="Agents")


@with_settings(COMMON)
def runs_list(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    status: Annotated[str | None, typer.Option("--status", help="Only runs in this state.")] = None,
    limit: Annotated[int, number("--limit", "Most runs to list.", least=1)] = 50,
    json: JsonOption = False,
) -> None:
    """List agent runs, newest first, of all tenants of this machine's journal; sub-runs are indented."""
    from pentad.application.cli.trace import row_summary

    with journal_of(flags, config) as journal:
        rows = journal.runs(status=status, limit=limit)
    if json:
        print_json([row_summary(row) for row in rows])
        return
    lines = [
        (
            row.id if row.parent is None else f"  {row.id}",
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

    with journal_of(flags, config) as journal:
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
    from pentad.application.cli.trace import (
        SUB_RUN_COLUMNS,
        bar_rows,
        decision_line,
        explanation_summary,
        sub_run_rows,
    )

    with journal_of(flags, config) as journal:
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
    waited = f"{duration(explanation.waiting_s)} waiting for a person, " if explanation.waiting_s else ""
    typer.echo(
        f"\n{duration(explanation.active_s)} at work, {waited}"
        f"{duration(explanation.offline_s)} between processes; "
        f"{counted(explanation.model_calls, 'model call')}, {explanation.prompt_tokens} prompt tokens "
        f"({explanation.cached_tokens} cached), {explanation.completion_tokens} generated; "
        f"{counted(explanation.tool_calls, 'tool call')}; cost {explanation.cost:g}"
    )
    if explanation.sub_runs:
        typer.echo("")
        print_table(SUB_RUN_COLUMNS, sub_run_rows(explanation), empty="")
    if explanation.waterfall:
        typer.echo("")
        columns = ("step", "what", "from", "took", "expected", "bound by", "")
        print_table(columns, bar_rows(explanation), empty="")
    if explanation.decisions:
        typer.echo("\ndecisions")
        for decision in explanation.decisions:
            typer.echo(f"  {decision_line(decision)}")


@with_settings(COMMON, MODELS, AGENTS, ENGINE, TELEMETRY)
def runs_resume(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    model: Annotated[
        str | None, typer.Option("--model", help="Serve this one; it must be the run's own.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Go on with a run that a stopped process left behind, with the model that it had.

    Effects already made are not repeated. `runs fork` goes on with another model.
    """
    import asyncio

    from pentad.agent.state import fold
    from pentad.application.cli.running import resume_run

    with journal_of(flags, config) as journal:
        state = fold(journal.read(run))
    settings = serving_only(
        settings_of(flags, config, quiet=True), model or state.spec.model, *of_members(state.spec)
    )
    raise typer.Exit(asyncio.run(resume_run(settings, run, tenant=state.tenant, as_json=json)))


@with_settings(COMMON)
def runs_cancel(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """End a run: through the server that works on it, or in the journal when nobody does."""
    import asyncio

    from pentad.application.cli.running import cancel_run

    with journal_of(flags, config) as journal:
        asyncio.run(cancel_run(journal, run, url, api_key))
    typer.echo(f"{run} cancelled")


@with_settings(COMMON)
def runs_approve(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    approval: ApprovalId = None,
    note: Note = "",
    input: Annotated[
        str | None, typer.Option("--input", help="Values that a tool asks for, as JSON.", metavar="JSON")
    ] = None,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Allow a tool call that a waiting run asks about: through its server, or in the journal."""
    from pentad.application.cli.running import Answer

    answer = Answer(approve=True, note=note, input=None if input is None else _values(input))
    _answer(flags, config, run, approval, answer, ServerClient(url, api_key, timeout_s=60))


@with_settings(COMMON)
def runs_deny(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    approval: ApprovalId = None,
    note: Note = "",
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Forbid a tool call that a waiting run asks about; the model is told so and goes on without."""
    from pentad.application.cli.running import Answer

    answer = Answer(approve=False, note=note)
    _answer(flags, config, run, approval, answer, ServerClient(url, api_key, timeout_s=60))


def _answer(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: str,
    approval: str | None,
    answer: Answer,
    server: ServerClient,
) -> None:
    import asyncio

    from pentad.agent.state import fold
    from pentad.application.cli.running import answer_run, only_pending, resume_command

    with journal_of(flags, config) as journal:
        asking, asked = only_pending(journal, run, approval)
        root = journal.root(asking)
        spec = fold(journal.read(root)).spec
        attended = asyncio.run(answer_run(journal, asking, asked.approval_id, answer, server))
    typer.echo(f"{'approved' if answer.approve else 'denied'}: {plain(asked.tool)} in {asking}")
    if not attended:
        note(f"no process works on it; {resume_command(spec, root)} goes on with it")


def _values(text: str) -> dict[str, Any]:
    import json

    try:
        values = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"--input is no JSON: {error}", param="input") from None
    if not isinstance(values, dict):
        raise InvalidRequest("--input is no JSON object", hint='write {"name": value}', param="input")
    return values


@contextmanager
def journal_of(flags: dict[str, Any], config: pathlib.Path | None) -> Iterator[Journal]:
    """The journal that the settings name, closed on leaving."""
    from pentad.application.folders import use_data_home

    settings = settings_of(flags, config, quiet=True)
    use_data_home(settings)
    with open_journal(settings) as journal:
        yield journal


def _first_line(text: str) -> str:
    line = plain(" ".join(text.split()))
    return line if len(line) <= 60 else line[:59] + "…"
