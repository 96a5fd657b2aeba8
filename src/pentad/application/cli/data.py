"""Verbs about what is kept: runs rm, prune, export; backup, restore."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, number, settings_of, with_settings
from pentad.application.cli.output import note, print_json, size
from pentad.application.cli.settings import JsonOption
from pentad.errors import Conflict, InvalidRequest

if TYPE_CHECKING:
    from pentad.agent.backup import DataFiles
    from pentad.agent.journal import Journal
    from pentad.application.config import Settings

RunIds = Annotated[list[str], typer.Argument(metavar="RUN", help="Ids of runs, as runs list shows them.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Output = Annotated[
    pathlib.Path | None, typer.Option("--output", metavar="FILE", help="Absent: standard output.")
]
DAY_S = 86_400.0


def register(app: typer.Typer) -> None:
    app.command("backup", rich_help_panel="Agents")(backup)
    app.command("restore", rich_help_panel="Agents")(restore)


def register_runs(runs: typer.Typer) -> None:
    """The verbs of data under `pentad runs`."""
    runs.command("rm")(runs_rm)
    runs.command("prune")(runs_prune)
    runs.command("export")(runs_export)


@with_settings(COMMON)
def runs_rm(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    runs: RunIds,
    yes: Yes = False,
    json: JsonOption = False,
) -> None:
    """Remove runs for ever, with their sub-runs: events, prompts, and the episode that memory kept of each.

    No byte of their text stays in the journal or the memory. Facts that they remembered, runs that were
    forked of them or recalled them, and backups stay.
    """
    settings = data_settings(flags, config)
    agree(f"Remove {len(runs)} runs for ever?", yes)
    _print_removed(_remove(settings, runs), json)


@with_settings(COMMON)
def runs_prune(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    days: Annotated[float, number("--days", "Remove runs that ended longer ago.", least=0)],
    status: Annotated[str | None, typer.Option("--status", help="Only runs in this state.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    yes: Yes = False,
    json: JsonOption = False,
) -> None:
    """Remove runs that ended some days ago, as runs rm does. Runs that have not ended stay."""
    settings = data_settings(flags, config)
    with open_journal(settings) as journal:
        before_s = time.time() - days * DAY_S
        # Sub-runs go with the run that leads them, which may still need their answers.
        ended = [r for r in journal.runs(status=status) if r.ended_s is not None and r.parent is None]
        old = [row.id for row in ended if row.ended_s is not None and row.ended_s <= before_s]
    if dry_run:
        _print_removed(old, json, said="would be removed")
        return
    if old:
        agree(f"Remove {len(old)} runs for ever?", yes)
    _print_removed(_remove(settings, old) if old else [], json)


@with_settings(COMMON)
def runs_export(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Absent: all of them.")] = None,
    output: Output = None,
    form: Annotated[
        str, typer.Option("--format", metavar="NAME", help="json, or otlp for OpenTelemetry's spans.")
    ] = "json",
    content: Annotated[
        bool, typer.Option("--content", help="otlp: with goals, answers, arguments and results.")
    ] = False,
) -> None:
    """Write runs as JSON lines, oldest first: what each came to, its events and its prompts.

    As otlp each line has the spans of a run and of its sub-runs; `pentad simulate` replays them.
    """
    from pentad.application.telemetry.run_export import otlp_lines, run_lines

    if form not in ("json", "otlp"):
        raise InvalidRequest(
            f"--format is {form!r}", hint="set --format otlp, or take it out", param="format"
        )
    if content and form != "otlp":
        raise InvalidRequest(
            "--content is of --format otlp; the other form always has it",
            hint="leave it out",
            param="content",
        )
    with open_journal(data_settings(flags, config)) as journal:
        if form == "otlp":
            write_lines(otlp_lines(journal, runs, note, content=content), output)
        else:
            write_lines(run_lines(journal, runs, note), output)


@with_settings(COMMON)
def backup(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    file: Annotated[
        pathlib.Path | None, typer.Argument(help="What to write. Absent: pentad-TIME.tar in this folder.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Copy journal, key, memory and approvals into one file, while a server goes on serving.

    The file has the key and all texts: keep it as safe as the data itself.
    """
    from pentad.agent import backup as backups

    target = file or pathlib.Path(f"pentad-{datetime.now():%Y%m%d-%H%M%S}.tar")
    kept = backups.backup(_data_files(data_settings(flags, config)), target)
    if json:
        print_json({"file": str(target), "files": kept})
        return
    typer.echo(f"{target}: {', '.join(f'{name} ({size(n)})' for name, n in kept.items())}")


@with_settings(COMMON)
def restore(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    file: Annotated[pathlib.Path, typer.Argument(help="What pentad backup wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Give up the data that is there now.")] = False,
    json: JsonOption = False,
) -> None:
    """Put a backup back. Refused while any process uses the data.

    Runs that were under way are not taken up by themselves: what they did since is not known to them.
    """
    from pentad.agent import backup as backups

    held = backups.restore(file, _data_files(data_settings(flags, config)), replace=replace)
    if json:
        print_json({"restored": str(file), "unfinished": held})
        return
    typer.echo(f"{file} is restored")
    for run_id in held:
        note(f"{run_id} was under way; pentad runs resume {run_id} goes on, runs cancel ends it")


def data_settings(flags: dict[str, Any], config: pathlib.Path | None) -> Settings:
    """The settings, with a data folder that can be used."""
    from pentad.application.folders import use_data_home

    settings = settings_of(flags, config, quiet=True)
    use_data_home(settings)
    return settings


@contextmanager
def open_journal(settings: Settings) -> Iterator[Journal]:
    """The journal that the settings name, closed on leaving."""
    from pentad.agent.journal import Journal
    from pentad.agent.prompt_store import PromptRetention
    from pentad.application.journals import journal_store

    retention = PromptRetention(days=settings.prompt_days, labels=settings.prompt_labels)
    journal = Journal(journal_store(settings), retention=retention)
    try:
        yield journal
    finally:
        journal.close()


def _data_files(settings: Settings) -> DataFiles:
    from pentad.agent.backup import DataFiles

    if settings.journal is not None:
        raise Conflict(
            "the journal is in PostgreSQL, which keeps its own backups",
            hint=f"use its tools, and copy {settings.data_root}: memory, approvals and the journal's key",
            param="journal",
        )
    return DataFiles(
        journal=settings.journal_path, memory=settings.memory_path, approvals=settings.approvals_path
    )


def _remove(settings: Settings, runs: Sequence[str]) -> list[str]:
    from pentad.agent.erasure import remove_runs, with_sub_runs
    from pentad.agent.memory.records import forget_episodes

    with open_journal(settings) as journal:  # brings a file of an earlier format to this one
        runs = with_sub_runs(journal, runs)
        remove_runs(journal.store, runs)
    forget_episodes(settings.memory_path, runs)
    return list(runs)


def _print_removed(runs: Sequence[str], as_json: bool, said: str = "removed") -> None:
    if as_json:
        print_json({said.replace(" ", "_"): list(runs)})
        return
    for run_id in runs:
        typer.echo(run_id)
    note(f"{len(runs)} {said}")


def agree(question: str, yes: bool) -> None:
    """Goes on once a person has said yes. Raises InvalidRequest without a terminal, Conflict for a no."""
    import sys

    from pentad.application.cli.approving import confirmed

    if not yes and not sys.stdin.isatty():
        raise InvalidRequest("nobody can be asked whether to remove for ever", hint="set --yes")
    if not yes and not confirmed(question):
        raise Conflict("nothing is removed")


def write_lines(lines: Iterable[dict[str, Any]], output: pathlib.Path | None) -> None:
    """JSON lines on standard output, or into a new file: whole or not at all."""
    import json
    import os
    import sys

    if output is None:
        for line in lines:
            sys.stdout.write(json.dumps(line, default=str) + "\n")
        return
    if output.exists():
        raise Conflict(f"{str(output)!r} exists", hint="name another --output")
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    written = 0
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            for line in lines:
                file.write(json.dumps(line, default=str) + "\n")
                written += 1
            file.flush()
            os.fsync(file.fileno())
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    note(f"{output}: {written} lines")
