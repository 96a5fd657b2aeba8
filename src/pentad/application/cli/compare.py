"""`pentad compare`: what the certificates of two models say, beside each other."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.certify import shown
from pentad.application.cli.models import ModelArgument, model_store
from pentad.application.cli.options import COMMON, with_settings
from pentad.application.cli.output import note, print_json, print_table
from pentad.application.cli.settings import JsonOption


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(rich_help_panel="Models")(compare)


@with_settings(COMMON)
def compare(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: ModelArgument,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Name of another, or of the source.")],
    plot: Annotated[
        pathlib.Path | None, typer.Option("--plot", metavar="FILE", help="Draw it into this SVG or PNG.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare what the certificates of two models say, as a table and a picture.

    Both were measured on the same data, or one is the source of the other.
    """
    from pentad.application.comparison import compared

    if plot is not None:
        from pentad.application.bench.plotting import require_plotting

        require_plotting()
    found = compared(model_store(flags, config), model, other)
    if plot is not None:
        from pentad.application.bench.plotting import plot_comparison

        plot_comparison(found, plot)
    if json:
        print_json(dataclasses.asdict(found))
        return
    rows = [
        (
            line.metric,
            shown(line.first),
            _bounds(line.first_interval),
            shown(line.second),
            _bounds(line.second_interval),
            line.unit,
            line.better or "neither",
        )
        for line in found.lines
    ]
    columns = ("metric", found.first, "95%", found.second, "95%", "unit", "better")
    print_table(columns, rows, empty="the certificates have no metric in common")
    note("better: where the intervals do not overlap")


def _bounds(interval: tuple[float, float] | None) -> str | None:
    return None if interval is None else f"{shown(interval[0])} to {shown(interval[1])}"
