"""The verb of a machine that computes a part of a model for another one: rank."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from pentad.application.cli import options
from pentad.application.cli.output import note
from pentad.choice import Choice, build

_WAIT_S: Final = 600.0
"""For the machine that serves the model to be there, or there again."""


def register(app: typer.Typer) -> None:
    app.command("rank", rich_help_panel="Machines")(rank)


def rank(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="HOST:PORT, as the first one says.")],
    number: Annotated[int, options.number("--rank", "Which part: 1, 2 ...", least=1)],
    ranks: Annotated[int, options.number("--ranks", "All parts together, the first included.", least=2)],
    key_file: Annotated[str, typer.Option("--key-file", metavar="FILE", help="The key that all have.")],
    transport: Annotated[
        str, typer.Option("--transport", metavar="NAME", help="As the first one has; host is this machine's.")
    ] = "tcp",
) -> None:
    """Compute a part of a model that another machine serves with --parallel, until it ends.

    Weights come from there; no file of the model is needed here.
    """
    from pentad.application.parallel import read_key
    from pentad.execution.ranks.host import serve_rank
    from pentad.execution.transport.base import Member

    member = Member(group="pentad", rank=number, size=ranks, key=read_key(key_file))
    note(f"rank {number} of {ranks} goes to {address}")
    serve_rank(build("transport", Choice.of(transport)), address, member, wait_s=_WAIT_S, back_s=_WAIT_S)
