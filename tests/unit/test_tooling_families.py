"""The table of families: no cell is empty, and every measured family is one of the registry's."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

from pentad import registry

ROOT = pathlib.Path(__file__).parents[2]
RECORD = ROOT / "tests" / "data" / "family_parity.json"


def test_every_family_has_a_row_without_an_empty_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    from families_table import COLUMNS, families_table

    _, _, *rows = families_table().splitlines()
    families = {id(registry.load("model_family", name)) for name in registry.TABLE["model_family"]}
    assert len(rows) == len(families)
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == len(COLUMNS), row
        assert all(cells), row
        assert "not measured" not in row
    assert "\n".join(rows) in (ROOT / "docs" / "families.md").read_text("utf-8"), "run scripts/docs"


def test_what_was_measured_is_within_the_bound_that_parity_tests_hold() -> None:
    for name, found in json.loads(RECORD.read_text("utf-8")).items():
        assert found["folder"] <= 1e-3, name
        assert isinstance(found["gguf"], str) or found["gguf"] <= 1e-3, name
