"""`pentad train`: a model that has learnt, out of one that is here."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Annotated, Any, Literal

import typer

from pentad.application.cli.models import ModelArgument, model_store
from pentad.application.cli.options import COMMON, number, with_settings
from pentad.application.cli.output import print_json, progress_bar, size
from pentad.application.cli.settings import JsonOption


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(rich_help_panel="Models")(train)


@with_settings(COMMON)
def train(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: ModelArgument,
    data: Annotated[pathlib.Path, typer.Option("--data", metavar="FILE", help="Text to learn from.")],
    out: Annotated[str, typer.Option("--out", metavar="NAME", help="What to call the new model.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME", help="Recipe, NAME:OPTION=VALUE,...")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="MODEL", help="Model to learn from, for some recipes.")
    ] = None,
    steps: Annotated[int, number("--steps", "Steps of training.", least=1, most=10**7)] = 200,
    batch: Annotated[int, number("--batch", "Windows of a step.", least=1, most=10**5)] = 2,
    window_tokens: Annotated[
        int, number("--window-tokens", "Tokens of a window.", least=2, most=10**6)
    ] = 256,
    seed: Annotated[int, number("--seed", "Of the data's order.", least=0, most=2**31)] = 0,
    format: Annotated[
        Literal["F32", "F16", "BF16", "Q8_0"],
        typer.Option("--format", help="Of the matrices that have learnt."),
    ] = "F16",
    plot: Annotated[
        pathlib.Path | None, typer.Option("--plot", metavar="FILE", help="Learning curve, as SVG.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a stored model on a text: `pentad strategies recipe` lists the recipes.

    The last twentieth of the text is held out, and the loss on it told before and after. Interrupted,
    the same call goes on at its last checkpoint.
    """
    from pentad.choice import Choice
    from pentad.execution.training import Schedule
    from pentad.model.training import train as training
    from pentad.registry import FAMILIES

    chosen = Choice.of(recipe or FAMILIES["recipe"].baseline)
    schedule = Schedule(steps=steps, batch=batch, window_tokens=window_tokens, seed=seed)
    store = model_store(flags, config, write=True)
    with progress_bar(f"train {model}") as bar:
        made, artefact = training.train(
            store, model, out, chosen, data, schedule=schedule, teacher=teacher, format=format, tell=bar
        )
    learnt = artefact.training
    assert learnt is not None, "it was trained"
    if plot is not None:
        from pentad.application.cli.line_chart import line_chart

        stretch = learnt.steps / len(learnt.curve)
        line = [((i + 1) * stretch, loss) for i, loss in enumerate(learnt.curve)]
        title = f"{made.name}: {learnt.recipe}"
        plot.write_text(line_chart(title, "steps", "loss", {"loss of the recipe": line}), "utf-8")
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
    typer.echo(f"{made.name}  {size(made.size_bytes)}  {made.path}")
    typer.echo(
        f"held-out perplexity {math.exp(learnt.loss_before):.2f} before, "
        f"{math.exp(learnt.loss_after):.2f} after"
    )
