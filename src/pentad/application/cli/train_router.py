"""`pentad train-router`: what the router `predicted` knows of each model's chance to be right."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.options import COMMON, MODELS, settings_of, with_settings
from pentad.application.cli.output import print_json, working
from pentad.application.cli.settings import JsonOption


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("train-router", rich_help_panel="Models")(train_router)


@with_settings(COMMON, MODELS)
def train_router(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    outcomes: Annotated[
        pathlib.Path,
        typer.Argument(metavar="OUTCOMES", help="JSON lines with `prompt` and `outcomes`, or a folder."),
    ],
    out: Annotated[pathlib.Path, typer.Option("--out", metavar="FILE", help="Estimate to write, .npz.")],
    estimator: Annotated[
        str, typer.Option("--estimator", metavar="NAME", help="mixed or knn, with options.")
    ] = "mixed",
    json: JsonOption = False,
) -> None:
    """Learn which models answer which questions right, for --router predicted:estimate=FILE.

    Questions are compared by the vectors of the embedding model that is served, beside their words.
    """
    from pentad import choice
    from pentad.application.cli.recollection import embedder_alone
    from pentad.model.routing.estimate_file import check_suffix, write_estimate
    from pentad.model.routing.outcomes import lessons_of, read_outcomes

    check_suffix(out)
    learner = choice.build("success", choice.Choice.of(estimator))
    recorded = read_outcomes(outcomes)
    embedder = embedder_alone(settings_of(flags, config, quiet=True), "a router's estimate needs vectors")
    with working(f"train-router {out.name}"):
        lessons = lessons_of(recorded, embedder.embed)
        write_estimate(out, learner.fit(lessons), encoder=embedder.name)
    told = {
        "path": str(out),
        "estimator": estimator,
        "encoder": embedder.name,
        "questions": len(lessons.questions),
        "models": list(lessons.models),
    }
    if json:
        print_json(told)
        return
    typer.echo(f"{out}  {len(lessons.questions)} questions  {', '.join(lessons.models)}")
