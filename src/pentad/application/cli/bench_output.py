"""What the verbs of `pentad bench` share: reading lists of numbers, printing and keeping results."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any

import typer

from pentad.application.cli.output import note
from pentad.errors import InvalidRequest

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Out = Annotated[
    pathlib.Path | None, typer.Option("--out", help="Add the JSON line to this file.", metavar="FILE")
]


def numbers(text: str, flag: str) -> tuple[int, ...]:
    """`1,8,32` as numbers. Raises InvalidRequest naming the flag."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InvalidRequest(
            f"{flag} is {text!r}", hint=f"give whole numbers with commas, as in --{flag} 1,8,32", param=flag
        ) from None


def finish(result: dict[str, Any], *, out: pathlib.Path | None, json: bool) -> None:
    """Prints and keeps the JSON line where asked."""
    from pentad.application.bench.facts import append_line, one_line

    if json:
        typer.echo(one_line(result))
    if out is not None:
        append_line(out, result)
        note(f"added to {out}")
