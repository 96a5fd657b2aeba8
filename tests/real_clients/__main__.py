"""Runs the cases that are named, or all, and prints a row for each; see scripts/real_clients."""

from __future__ import annotations

import argparse
import subprocess
import sys

from real_clients import installs
from real_clients.case import Case
from real_clients.table import CASES, Row, record, table
from real_clients.world import run


def main() -> int:
    """Exit status 1 when a case failed."""
    parser = argparse.ArgumentParser(prog="scripts/real_clients", description=__doc__)
    known = [case.name for case in CASES]
    parser.add_argument("names", nargs="*", metavar="CLIENT", help=f"of {', '.join(known)}; all if none")
    parser.add_argument("--record", action="store_true", help="keep the outcome under benchmarks/results")
    parser.add_argument("--verbose", action="store_true", help="show what a failed client printed")
    chosen = parser.parse_args()
    for name in chosen.names:
        if name not in known:
            parser.error(f"unknown client {name!r}; known: {', '.join(known)}")
    rows = []
    for case in CASES:
        if not chosen.names or case.name in chosen.names:
            rows.append(attempt(case, verbose=chosen.verbose))
            print(" | ".join((rows[-1].client, rows[-1].version, rows[-1].did, rows[-1].outcome)), flush=True)
    if chosen.record:
        record(rows)
        print(table())
    return int(any(row.outcome != "ok" for row in rows))


def attempt(case: Case, *, verbose: bool = False) -> Row:
    """Installs, serves, runs and checks one case; whatever goes wrong is its outcome."""
    version, outcome = "-", "ok"
    try:
        home = installs.ready(case.install)
        version = installs.version(case.install)
        case.check(run(case, home, under=installs.ROOT))
    except (subprocess.SubprocessError, OSError, AssertionError, LookupError, TypeError, ValueError) as e:
        outcome = f"failed: {_line(e)}"
        if verbose:
            print(getattr(e, "stdout", None) or "", getattr(e, "stderr", None) or e, file=sys.stderr)
    return Row(
        client=case.name,
        version=version,
        model=case.model or "scripted",
        did=case.did,
        outcome=outcome,
    )


def _line(error: Exception) -> str:
    """The last line of what a program complained about, else the error's first."""
    said = getattr(error, "stderr", None)
    if isinstance(said, bytes):
        said = said.decode(errors="replace")
    lines = (said or "").strip().splitlines()[-1:] or str(error).splitlines() or [type(error).__name__]
    return lines[0][:300]


if __name__ == "__main__":
    sys.exit(main())
