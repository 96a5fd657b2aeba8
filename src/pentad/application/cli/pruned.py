"""`pentad pruned`: what pruning took from a model."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.models import ModelArgument
from pentad.application.cli.options import COMMON, ENGINE, number, settings_of, with_settings
from pentad.application.cli.output import note, print_json, print_table
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(rich_help_panel="Models")(pruned)


@with_settings(COMMON, ENGINE)
def pruned(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: ModelArgument,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="NAME=FILE", help="Text of a capability; repeatable."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="MODEL", help="Absent: the model it was made from.")
    ] = None,
    windows: Annotated[int, number("--windows", "Windows taken of each text.", least=2, most=10**6)] = 8,
    window_tokens: Annotated[int, number("--window-tokens", "Tokens of each.", least=2, most=10**6)] = 256,
    json: JsonOption = False,
) -> None:
    """Tell what pruning took from a model: by layer, by text and by token.

    A text is flagged whose loss rose clearly more than that of the others: a capability that the model
    has lost, as happens to one that the calibration text had nothing of.
    """
    from pentad.application.pruned import pruning_report

    texts = dict(_named(each) for each in text or ())
    settings = settings_of(flags, config, quiet=True)
    report, words = pruning_report(
        settings, model, texts, source=source, windows=windows, window_tokens=window_tokens
    )
    if json:
        print_json(dataclasses.asdict(report))
        return
    print_table(
        ("matrix", "removed", "of its square"),
        [(each.name, f"{each.removed:.1%}", f"{each.energy:.1%}") for each in report.matrices],
        empty="no matrix was looked at",
    )
    if not report.texts:
        return
    print_table(
        ("text", "nats before", "rise", "95%", "flagged"),
        [
            (t.name, f"{t.before:.3f}", f"{t.rise:+.3f}", f"{t.low:+.3f} to {t.high:+.3f}", "yes" * t.flagged)
            for t in report.texts
        ],
        empty="",
    )
    listed = ", ".join(f"{words[each.token]!r} {each.rise:+.2f}" for each in report.tokens)
    note(f"tokens that rose most: {listed or 'none comes often enough'}")


def _named(given: str) -> tuple[str, pathlib.Path]:
    name, equals, path = given.partition("=")
    if not (name and equals and path):
        raise InvalidRequest(f"{given!r} names no text", hint="write --text NAME=FILE", param="text")
    return name, pathlib.Path(path)
