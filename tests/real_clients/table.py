"""All cases, and the table of what was recorded of them."""

from __future__ import annotations

import json
import pathlib
from dataclasses import asdict, dataclass

from real_clients.coding import CASES as CODING
from real_clients.evaluation import CASES as EVALUATION
from real_clients.libraries import CASES as LIBRARIES
from real_clients.pages import CASES as PAGES

ROOT = pathlib.Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "real-clients.jsonl"
CASES = (*LIBRARIES, *PAGES, *CODING, *EVALUATION)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    client: str
    version: str
    """Package and version."""
    model: str
    did: str
    outcome: str
    """`ok`, or `failed: ...` with the reason's first line."""


def record(rows: list[Row]) -> None:
    """Puts the rows in the place of those of the same clients, in the order of the cases."""
    known = {}
    if RESULTS.exists():
        known = {row["client"]: row for row in map(json.loads, RESULTS.read_text("utf-8").splitlines())}
    known |= {row.client: {"benchmark": "real_clients", **asdict(row)} for row in rows}
    lines = [json.dumps(known[case.name]) + "\n" for case in CASES if case.name in known]
    RESULTS.write_text("".join(lines), encoding="utf-8")


def table() -> str:
    """The recorded rows as Markdown."""
    rows = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]
    lines = ["| client | version | model | what it did | outcome |", "|---|---|---|---|---|"]
    columns = ("client", "version", "model", "did", "outcome")
    lines += ["| " + " | ".join(row[column] for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"
