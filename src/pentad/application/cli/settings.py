"""Verbs about the command itself: config, version, completion."""

from __future__ import annotations

import enum
import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.options import AGENTS, COMMON, ENGINE, MODELS, SERVER, TELEMETRY, with_settings
from pentad.application.cli.output import note, print_json, print_table

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Shell(enum.StrEnum):
    """Shells that completion is written for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"
    powershell = "powershell"


def register(app: typer.Typer) -> None:
    config = typer.Typer(help="Look at the settings.", no_args_is_help=True)
    config.command("show")(show)
    config.command("schema")(schema)
    app.add_typer(config, name="config", rich_help_panel="This program")
    app.command("version", rich_help_panel="This program")(version)
    app.command("completion", rich_help_panel="This program")(completion)


@with_settings(COMMON, ENGINE, SERVER, MODELS, AGENTS, TELEMETRY)
def show(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Defaults too, not only what was set.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Print the settings in force and where each came from."""
    from pentad.application.config_loading import resolve

    result = resolve(flags, file=config)
    values = result.settings.shown()
    chosen = {k: v for k, v in values.items() if resolved or result.sources[k] != "default"}
    for variable in result.unknown_variables:
        note(f"warning: {variable} sets nothing; pentad config show --resolved lists what can be set")
    if json:
        print_json({k: {"value": v, "source": result.sources[k]} for k, v in chosen.items()})
    else:
        rows = [(k, _text(v), result.sources[k]) for k, v in chosen.items()]
        print_table(
            ("setting", "value", "source"), rows, empty="nothing is set; --resolved shows the defaults"
        )


def schema() -> None:
    """Print the JSON Schema of a settings file, for editors."""
    from pentad.application.config import schema_json

    typer.echo(schema_json(), nl=False)


def version(json: JsonOption = False) -> None:
    """Print the version."""
    from pentad import __version__

    if json:
        print_json({"version": __version__})
    else:
        typer.echo(f"pentad {__version__}")


def completion(shell: Annotated[Shell, typer.Argument(help="Shell to complete in.")]) -> None:
    """Print the completion script of a shell; source it from the shell's start-up file."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name="pentad", complete_var="_PENTAD_COMPLETE", shell=shell.value)
    typer.echo(script)


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
