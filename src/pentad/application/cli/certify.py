"""`pentad certify`: what a model is worth beside the one it was made from, measured and kept."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.models import ModelArgument
from pentad.application.cli.options import COMMON, ENGINE, number, settings_of, with_settings
from pentad.application.cli.output import note, print_json, print_table, progress_bar
from pentad.application.cli.settings import JsonOption

if TYPE_CHECKING:
    from pentad.model.certification.base import Measured
    from pentad.model.certification.certificate import Certificate
    from pentad.model.certification.checking import Difference


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(rich_help_panel="Models")(certify)


@with_settings(COMMON, ENGINE)
def certify(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: ModelArgument,
    text: Annotated[
        pathlib.Path | None, typer.Option("--text", metavar="FILE", help="Text to measure on.")
    ] = None,
    windows: Annotated[int, number("--windows", "Windows taken of it.", least=1, most=10**6)] = 16,
    window_tokens: Annotated[int, number("--window-tokens", "Tokens of each.", least=2, most=10**6)] = 256,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Metric, NAME:OPTION=VALUE,...; repeatable."),
    ] = None,
    data: Annotated[
        pathlib.Path | None,
        typer.Option("--data", metavar="FOLDER", help="Where data files of task scores lie."),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="MODEL", help="Absent: the model it was made from.")
    ] = None,
    seed: Annotated[int, number("--seed", "Of what is drawn.", least=0, most=2**31)] = 0,
    check: Annotated[
        bool, typer.Option("--check", help="Measure again what the certificate says, and compare.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure what a model is worth beside the one it was made from, and keep that as its certificate.

    `pentad strategies metric` lists what can be measured. With settings of the KV cache (--kv-dtype,
    --kv-policy) the certificate is about the model under these. Interrupted, the same call goes on where it
    stopped. With --check, exit status 1 says that something differs.
    """
    from pentad.application.cli.agents import serving_only
    from pentad.application.measuring import Request, certificate_of, check_certificate

    settings = settings_of(flags, config, quiet=True)
    asked = Request(
        model=model,
        source=source,
        text=text,
        windows=windows,
        window_tokens=window_tokens,
        metrics=tuple(metric or ()),
        data=data,
        seed=seed,
    )
    with progress_bar(f"certify {model}") as bar:
        if check:
            found, differences = check_certificate(settings, asked, serving_only, bar)
        else:
            found, path = certificate_of(settings, asked, serving_only, bar)
    if check:
        _print_check(found, differences, as_json=json)
        if any(each.verdict == "differs" for each in differences):
            raise typer.Exit(1)
        return
    if json:
        print_json(dataclasses.asdict(found) | {"path": str(path)})
        return
    print_table(
        ("metric", "value", "95%", "source", "unit", "interval", "n"),
        [row(name, measured) for name, measured in found.measured.items()],
        empty="nothing was measured",
    )
    note(f"certificate {found.sha256[:12]} of {found.model} beside {found.source}: {path}")


def row(name: str, measured: Measured) -> tuple[object, ...]:
    """A line of a table of metrics."""
    from pentad.choice import Choice, build

    unit = build("metric", Choice.of(name)).unit
    source = None if measured.source is None else shown(measured.source)
    bounds = f"{shown(measured.low)} to {shown(measured.high)}" if measured.low != measured.high else None
    return (name, shown(measured.value), bounds, source, unit, measured.interval, measured.count)


def shown(value: float) -> str:
    """A number as tables show it."""
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _print_check(found: Certificate, differences: list[Difference], *, as_json: bool) -> None:
    if as_json:
        print_json({"certificate": found.sha256, "metrics": [dataclasses.asdict(d) for d in differences]})
        return
    rows = [
        (
            each.metric,
            shown(each.certified.value),
            f"{shown(each.certified.low)} to {shown(each.certified.high)}",
            shown(each.now.value),
            each.verdict,
        )
        for each in differences
    ]
    print_table(("metric", "certified", "95%", "now", "verdict"), rows, empty="nothing was certified")
