"""`pentad compress`: a smaller model out of one that is here."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.models import ModelArgument, model_store
from pentad.application.cli.options import COMMON, number, with_settings
from pentad.application.cli.output import print_json, progress_bar, size
from pentad.application.cli.settings import JsonOption


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(rich_help_panel="Models")(compress)


@with_settings(COMMON)
def compress(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: ModelArgument,
    out: Annotated[str, typer.Option("--out", metavar="NAME", help="What to call the new model.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", metavar="NAME", help="Transform, NAME:OPTION=VALUE,...; repeatable, in order."
        ),
    ] = None,
    calibration: Annotated[
        pathlib.Path | None, typer.Option("--calibration", metavar="FILE", help="Text to calibrate on.")
    ] = None,
    windows: Annotated[int, number("--windows", "Windows taken of it.", least=1, most=10**6)] = 32,
    window_tokens: Annotated[int, number("--window-tokens", "Tokens of each.", least=1, most=10**6)] = 512,
    json: JsonOption = False,
) -> None:
    """Derive a model from a stored one: `pentad strategies transform` lists the methods.

    Works layer by layer within the memory of one; interrupted, the same call goes on where it stopped,
    and ends with the same bytes.
    """
    from pentad.choice import Choice
    from pentad.model import compression
    from pentad.registry import FAMILIES

    text = None
    if calibration is not None:
        text = compression.CalibrationText(path=calibration, windows=windows, window_tokens=window_tokens)
    methods = [Choice.of(each) for each in method or (FAMILIES["transform"].baseline,)]
    store = model_store(flags, config, write=True)
    with progress_bar(f"compress {model}") as bar:
        made, artefact = compression.compress(store, model, out, methods, calibration=text, tell=bar)
    if json:
        print_json(
            {
                "name": made.name,
                "path": str(made.path),
                "size_bytes": made.size_bytes,
                "sha256": made.sha256,
                "artefact": dataclasses.asdict(artefact),
            }
        )
        return
    before = store.resolve(model).size_bytes
    typer.echo(f"{made.name}  {size(made.size_bytes)} (from {size(before)})  {made.path}")
