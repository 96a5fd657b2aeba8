"""What docs/clients.md says of clients is what was recorded, and every case was."""

from __future__ import annotations

import json
import pathlib

from real_clients.table import CASES, RESULTS, table

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_every_client_has_a_recorded_outcome_which_is_its_own() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]
    assert [(row["client"], row["did"]) for row in rows] == [(case.name, case.did) for case in CASES]
    assert {row["outcome"] for row in rows} == {"ok"}


def test_the_page_shows_the_recorded_table() -> None:
    assert table() in (ROOT / "docs" / "clients.md").read_text("utf-8")
