"""A plan as the commands of another engine."""

from __future__ import annotations

import shlex

import typer

from pentad.application.cli.output import print_json
from pentad.choice import Choice, build
from pentad.resource.launching.base import Launcher
from pentad.resource.placement.base import Workload
from pentad.resource.placement.plan import Plan


def show(plan: Plan, workload: Workload, engine: str, model: str, *, as_json: bool) -> None:
    """Prints what carries out `plan`. Raises UnknownName; Incompatible where the engine cannot follow it."""
    launcher: Launcher = build("launcher", Choice.of(engine))
    launch = launcher.launch(plan, workload, model)
    if as_json:
        print_json({"commands": launch.commands, "settings": launch.settings})
        return
    for command in launch.commands:
        typer.echo(shlex.join(command))
