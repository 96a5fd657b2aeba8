"""`pentad bench routing`: routers on recorded outcomes, held-out questions alone."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.bench_output import Json, Out, finish
from pentad.application.cli.options import COMMON, MODELS, number, settings_of, with_settings
from pentad.application.cli.output import print_table, progress_bar, working
from pentad.errors import InvalidRequest


@with_settings(COMMON, MODELS)
def routing(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    outcomes: Annotated[
        pathlib.Path,
        typer.Option("--outcomes", metavar="FILE", help="JSON lines or a table, or a folder of them."),
    ],
    routers: Annotated[
        str, typer.Option("--routers", help="Estimators, with commas; knn is always among them.")
    ] = "mixed,kernel,knn",
    cost: Annotated[
        list[str] | None,
        typer.Option("--cost", metavar="NAME=NUMBER", help="Of an answer; repeatable."),
    ] = None,
    seeds: Annotated[int, number("--seeds", "Ways to halve the questions.", least=1, most=1000)] = 5,
    plot: Annotated[
        pathlib.Path | None, typer.Option("--plot", metavar="FILE", help="Draw the curves into this file.")
    ] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Measure routers on outcomes that were recorded: quality by cost, calibration, on the half held out.

    All that is chosen is chosen on the other half. Compared are the best single model, chosen there too,
    random mixtures of models, and the oracle, which knows who will be right.
    """
    from pentad.application.bench import plotting
    from pentad.application.bench.routing import bench_routing, costs_of
    from pentad.application.cli.recollection import embedder_alone
    from pentad.model.routing.outcomes import lessons_of, read_outcomes

    if plot is not None:
        plotting.require_plotting()
    recorded = read_outcomes(outcomes)
    embedder = embedder_alone(settings_of(flags, config, quiet=True), "routers compare questions by vectors")
    with working(f"embed {len(recorded)} questions"):
        lessons = lessons_of(recorded, embedder.embed)
    costs = costs_of(_costs(cost or ()), lessons)
    with progress_bar("bench routing") as bar:
        result = bench_routing(
            lessons, [one for one in routers.split(",") if one], costs, seeds=seeds, tell=bar
        )
    finish({"bench": "routing", "encoder": embedder.name, **result}, out=out, json=json)
    if plot is not None:
        plotting.plot_curves(result["curves"], result["best_single"], plot)
    if not json:
        _show(result)


def _costs(given: list[str] | tuple[str, ...]) -> dict[str, float]:
    found = {}
    for one in given:
        name, _, number = one.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name or found[name] < 0:
            raise InvalidRequest(f"--cost is {one!r}", hint="write it as --cost large=10", param="cost")
    return found


def _show(result: dict[str, Any]) -> None:
    typer.echo(
        f"{result['held_out']} of {result['questions']} questions held out, {result['seeds']} ways; "
        f"best single {result['best_single']:.4f}, random mixtures {result['random']:.4f}, "
        f"oracle {result['oracle']:.4f}\n"
    )
    rows = [
        (
            name,
            f"{one['area']:.4f}",
            "{:+.4f} ({:+.4f} to {:+.4f})".format(one["over_knn"], *one["over_knn_interval"]),
            f"{one['ahead_of_knn']}/{result['seeds']}",
            f"{one['over_best_single']:+.4f}",
            f"{one['peak_quality']:.4f}",
            f"{one['ece_worst']:.3f}",
        )
        for name, one in result["routers"].items()
    ]
    columns = ("router", "area", "over knn (95%)", "ahead", "over best single", "peak", "worst ECE")
    print_table(columns, rows, empty="")
