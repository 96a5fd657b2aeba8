"""Verbs about machines: doctor, profile, plan, simulate."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import typer

from pentad.application.cli.options import COMMON, with_settings
from pentad.application.cli.output import note, print_json, print_table
from pentad.application.cli.settings import JsonOption


def register(app: typer.Typer) -> None:
    panel = "Machines"
    app.command("doctor", rich_help_panel=panel)(doctor)


@with_settings(COMMON)
def doctor(flags: dict[str, Any], config: pathlib.Path | None, json: JsonOption = False) -> None:
    """Check this installation: machine, packages, kernels, disk, models. Exit 1 on trouble."""
    from pentad.application.cli.doctor import examine
    from pentad.application.config_loading import load_settings

    findings = examine(load_settings(flags, file=config))
    if json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        print_table(
            ("", "what", "finding"), [(f.state, f.what, f.detail) for f in findings], empty="nothing found"
        )
        for finding in findings:
            if finding.hint:
                note(f"hint: {finding.what}: {finding.hint}")
    if any(finding.state == "trouble" for finding in findings):
        raise typer.Exit(1)
