"""The coverage table as data: rows, and the claims that each row's "works when" makes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from evidence.subjects import ROOT

COVERAGE = ROOT / "docs" / "coverage" / "coverage.md"

LAYERS = {"0": "framework", "II": "application", "III": "agent", "IV": "model", "V": "resource"} | {
    "VI": "execution",
    "VII": "outlook",
}
"""Chapter of the survey to the layer it is about; `outlook` rows cross layers."""

_MEASURABLE = re.compile(
    r"\b(at least|at most|below|under|within|above|over|more than|fewer|less than|up|down|rises?|beats?|"
    r"faster|exceeds?)\b.*\d|\d(\.\d+)?\s?(x|%|points|ms|s)\b"
)


@dataclass(frozen=True)
class Claim:
    """One clause of "works when"; `number` counts from 1 within the row."""

    number: int
    text: str

    @property
    def measurable(self) -> bool:
        """Whether it states a quantity, which only a recorded measurement can hold."""
        return bool(_MEASURABLE.search(self.text))


@dataclass(frozen=True)
class Row:
    """One line of the coverage table."""

    id: str
    layer: str
    form: str
    claims: tuple[Claim, ...]

    @property
    def needs(self) -> frozenset[str]:
        """The kinds of test without which the row does not work.

        Every row needs its mechanism shown. A strategy, and every row that states a quantity, needs
        its effect measured as well.
        """
        effect = self.form.startswith("strategy") or any(claim.measurable for claim in self.claims)
        return frozenset({"mechanism", "effect"} if effect else {"mechanism"})


def read_table(text: str) -> dict[str, Row]:
    """The rows of the table, in order. Raises ValueError on an id that stands twice."""
    rows: dict[str, Row] = {}
    layer = None
    for line in text.splitlines():
        if line.startswith("## "):
            chapter = re.match(r"## (0|[IV]+)[.\-/ ]", line)
            layer = LAYERS[chapter[1]] if chapter else None
        match = re.match(r"\| `([a-z0-9-]+)` \|", line)
        if match and layer:
            if match[1] in rows:
                raise ValueError(f"row {match[1]!r} stands twice in the table")
            cells = line.split("|")
            rows[match[1]] = Row(match[1], layer, cells[-3].strip(), _claims(cells[4]))
    return rows


def _claims(works_when: str) -> tuple[Claim, ...]:
    """The clauses between semicolons; those inside brackets stay with theirs."""
    clauses = re.split(r";(?![^(]*\))", works_when.strip().rstrip("."))
    return tuple(Claim(i, clause.strip()) for i, clause in enumerate(clauses, 1) if clause.strip())
