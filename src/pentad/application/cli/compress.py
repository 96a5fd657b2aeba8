"""`pentad compress`: a smaller model out of one that is here."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.models import ModelArgument, model_store
from pentad.application.cli.options import COMMON, number, settings_of, with_settings
from pentad.application.cli.output import print_json, print_table, progress_bar, size, working
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest

if TYPE_CHECKING:
    from pentad.application.target_search import Tried
    from pentad.model.compression import CalibrationText


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
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="WHAT=VALUE",
            help="Search methods and settings: size=0.5, speed=1.3, quality=0.05 (KL).",
        ),
    ] = None,
    text: Annotated[
        pathlib.Path | None,
        typer.Option("--text", metavar="FILE", help="Text that a search is measured on."),
    ] = None,
    tries: Annotated[int, number("--tries", "Candidates of a search, at most.", least=1, most=1000)] = 12,
    windows: Annotated[int, number("--windows", "Windows taken of it.", least=1, most=10**6)] = 32,
    window_tokens: Annotated[int, number("--window-tokens", "Tokens of each.", least=1, most=10**6)] = 512,
    json: JsonOption = False,
) -> None:
    """Derive a model from a stored one: `pentad strategies transform` lists the methods.

    Works layer by layer within the memory of one; interrupted, the same call goes on where it stopped,
    and ends with the same bytes. With --target, the methods (or those named) are tried in several settings,
    measured on --text beside the source, and the best within the target is made, with its certificate.
    """
    from pentad.choice import Choice
    from pentad.model import compression
    from pentad.registry import FAMILIES

    calibrated = None
    if calibration is not None:
        calibrated = compression.CalibrationText(
            path=calibration, windows=windows, window_tokens=window_tokens
        )
    if target is not None:
        _search(
            flags, config, model, out, target, method or [], text, tries, calibration=calibrated, as_json=json
        )
        return
    methods = [Choice.of(each) for each in method or (FAMILIES["transform"].baseline,)]
    store = model_store(flags, config, write=True)
    with progress_bar(f"compress {model}") as bar:
        made, artefact = compression.compress(store, model, out, methods, calibration=calibrated, tell=bar)
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


def _search(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    model: str,
    out: str,
    target: str,
    methods: Sequence[str],
    text: pathlib.Path | None,
    tries: int,
    *,
    calibration: CalibrationText | None,
    as_json: bool,
) -> None:
    from pentad.application.cli.agents import serving_only
    from pentad.application.target_search import Search, Target
    from pentad.choice import Choice

    if text is None:
        raise InvalidRequest(
            "a search measures what it tries on a text, and none is given",
            hint="set --text to a text file",
            param="text",
        )
    settings = settings_of(flags, config, quiet=True)
    search = Search(
        store=model_store(flags, config, write=True),
        settings=settings,
        alone=serving_only,
        source=model,
        out=out,
        target=Target.of(target),
        methods=[Choice.of(each) for each in methods],
        calibration=calibration,
        text=text,
        most=tries,
    )
    with working(f"compress {model}") as say:
        made, certificate, tried = search.run(
            lambda what, done, total: say(f"{what} ({done + 1} of {total})")
        )
    if as_json:
        print_json(
            {
                "name": made.name,
                "path": str(made.path),
                "size_bytes": made.size_bytes,
                "sha256": made.sha256,
                "certificate": dataclasses.asdict(certificate),
                "tried": [dataclasses.asdict(each) for each in tried],
            }
        )
        return
    chosen = next(t for t in tried if t.certificate and t.certificate.measured == certificate.measured)
    print_table(
        ("methods", "KL", "95%", "top-1", "size", "tokens/s", "within"),
        [_line(each, chosen=each is chosen) for each in tried],
        empty="nothing was tried",
    )
    typer.echo(f"{made.name}  {size(made.size_bytes)}  {made.path}")


def _line(tried: Tried, *, chosen: bool) -> tuple[object, ...]:
    what = " + ".join(tried.methods)
    if tried.certificate is None:
        return (what, None, None, None, None, None, tried.about)
    found = tried.certificate.measured
    kl, speed = found["kl"], found.get("decode-speed")
    return (
        what,
        f"{kl.value:.4g}",
        f"{kl.low:.4g} to {kl.high:.4g}",
        f"{found['top1'].value:.1%}",
        size(found["size"].value),
        None if speed is None else f"{speed.value:.1f}",
        "chosen" if chosen else "yes" if tried.reached else "no",
    )
