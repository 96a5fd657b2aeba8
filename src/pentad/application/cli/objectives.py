"""`pentad objectives check`: before serving, whether what classes are promised can be kept here."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, ENGINE, MODELS, number, settings_of, with_settings
from pentad.application.cli.output import print_json, print_table, working
from pentad.application.cli.settings import JsonOption
from pentad.application.cli.simulated_machine import Models, machine_of, serving

if TYPE_CHECKING:
    from pentad.application.objective_check import ClassVerdict


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(help="Check what classes of requests are promised.", no_args_is_help=True)
    group.callback()(_group)
    group.command("check")(check)
    app.add_typer(group, name="objectives", rich_help_panel="Machines")


def _group() -> None:
    """Keeps the one verb a verb."""


@with_settings(COMMON, MODELS, ENGINE)
def check(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    file: Annotated[
        pathlib.Path, typer.Argument(metavar="FILE", help="Classes and loads, or a settings file.")
    ],
    models: Models = None,
    measured: Annotated[
        list[pathlib.Path] | None,
        typer.Option("--measured", metavar="FILE", help="Runs of bench elastic --out; repeatable."),
    ] = None,
    machine: Annotated[
        str, typer.Option("--machine", help="local, a device by name, or a profile.")
    ] = "local",
    seed: Annotated[int, number("--seed", "Of simulated arrivals.", least=0, most=2**31)] = 0,
    json: JsonOption = False,
) -> None:
    """Tell whether this machine and these models can keep what classes are promised, or what would do.

    Exit status 1 where a class is not kept.
    """
    from pentad.application.bench.elastic.run_line import read_lines
    from pentad.application.objective_check import ModelFacts, check_objectives, judged_of
    from pentad.application.objective_file import read_objectives
    from pentad.model.prices import FREE

    classes, loads = read_objectives(file)
    judged = judged_of(read_lines(measured or ()))
    here = machine_of(serving(settings_of(flags, config, quiet=True), models), machine)
    facts = [
        ModelFacts(
            name=name,
            cost=cost,
            quality=here.qualities.get(name),
            price=here.prices.get(name, FREE),
            judged=judged.get(name, {}),
        )
        for name, cost in here.costs.items()
    ]
    with working("simulate the classes together"):
        verdicts = check_objectives(
            classes, loads, facts, limits=here.limits, scheduler=here.scheduler, seed=seed
        )
    kept = all(one.kept for one in verdicts)
    if json:
        print_json({"kept": kept, "classes": [dataclasses.asdict(one) for one in verdicts]})
    else:
        _show(verdicts)
    if not kept:
        raise typer.Exit(1)


def _show(verdicts: list[ClassVerdict]) -> None:
    rows = [
        (
            one.name,
            "yes" if one.kept else "no",
            one.model or "none",
            "-" if one.quality is None else f"{one.quality:.2f} {one.basis}",
            "-" if one.attained is None else f"{one.attained:.1%} of {one.target:.0%}",
            one.binding,
        )
        for one in verdicts
    ]
    print_table(("class", "kept", "model", "quality", "in time", "binding"), rows, empty="")
    for one in verdicts:
        for place, change in enumerate(one.changes):
            typer.echo(f"{'' if place else chr(10)}{one.name}: {'or' if place else 'it would take'} {change}")
