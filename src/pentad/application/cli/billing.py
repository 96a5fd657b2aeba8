"""Verbs about money: whom the runs' bills belong to, and whether the ledger of shares is right."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pentad.application.cli.options import COMMON, with_settings
from pentad.application.cli.output import note, print_json, print_table
from pentad.application.cli.runs import RunId, journal_of
from pentad.application.cli.settings import JsonOption
from pentad.errors import InvalidRequest, PentadError

if TYPE_CHECKING:
    from pentad.agent.billing.share_ledger import ShareLedger
    from pentad.agent.billing.shares import SharePlan

Shares = Annotated[
    pathlib.Path, typer.Option("--shares", help="YAML file of rates and shares.", metavar="FILE")
]
Ledger = Annotated[
    pathlib.Path, typer.Option("--ledger", help="File that entries are added to.", metavar="FILE")
]


@with_settings(COMMON)
def runs_bill(
    flags: dict[str, Any],
    config: pathlib.Path | None,
    run: RunId,
    shares: Shares,
    ledger: Ledger,
    json: JsonOption = False,
) -> None:
    """Charge what a run used to the ledger of shares, split by declared shares."""
    from pentad.agent.billing.meter import metered_use
    from pentad.agent.run_status import UNFINISHED

    plan, book = _plan(shares), _ledger(ledger)
    with journal_of(flags, config) as journal:
        if journal.run(run).status in UNFINISHED:
            raise InvalidRequest(f"run {run!r} has not ended", hint="charge it when it has", param="run")
        added = book.add(run, metered_use(journal.read(run)), plan)
    with ledger.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in book.lines(added))
    _show(book, [], as_json=json)


@with_settings(COMMON)
def runs_audit(
    flags: dict[str, Any],  # noqa: ARG001
    config: pathlib.Path | None,  # noqa: ARG001
    shares: Shares,
    ledger: Ledger,
    json: JsonOption = False,
) -> None:
    """Compute every entry of a ledger of shares anew, and say which do not come out."""
    plan, book = _plan(shares), _ledger(ledger)
    wrong = book.audit(plan)
    _show(book, wrong, as_json=json)
    if wrong:
        raise PentadError(f"{len(wrong)} things are wrong with {str(ledger)!r}: {wrong[0]}")


def _show(book: ShareLedger, wrong: list[str], *, as_json: bool) -> None:
    from pentad.agent.billing.shares import PER_UNIT

    if as_json:
        print_json(
            {
                "entries": len(book.entries),
                "billed": book.billed / PER_UNIT,
                "earned": {name: part / PER_UNIT for name, part in book.earned.items()},
                "wrong": wrong,
                "last_digest": book.entries[-1].digest if book.entries else None,
            }
        )
        return
    rows = [(name, f"{part / PER_UNIT:.6f}") for name, part in book.earned.items()]
    print_table(("contributor", "earned"), rows, empty="nothing is charged yet")
    note(f"{book.billed / PER_UNIT:.6f} billed in {len(book.entries)} entries")


def _plan(path: pathlib.Path) -> SharePlan:
    from pentad.agent.billing.shares import SharePlan
    from pentad.yaml_text import read_yaml

    try:
        value = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidRequest(f"{str(path)!r} is no YAML: {error}", param="shares") from None
    return SharePlan.of(value)


def _ledger(path: pathlib.Path) -> ShareLedger:
    from pentad.agent.billing.share_ledger import ShareLedger

    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return ShareLedger.of(lines)
