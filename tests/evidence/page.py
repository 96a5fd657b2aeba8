"""A report as text and as JSON."""

from __future__ import annotations

import json
from typing import Any

from evidence.table import LAYERS
from evidence.verdict import STATUSES, Evidence, Report


def as_json(report: Report) -> str:
    """The report as one JSON object."""
    rows = {row: _row(report, row) for row in report.rows}
    works = sum(s == "works" for s in report.status.values())
    return json.dumps({"works": works, "total": len(rows), "layers": report.layers(), "rows": rows}, indent=1)


def _row(report: Report, row: str) -> dict[str, Any]:
    claims = [
        {"claim": c.text, "measurable": c.measurable, "held_by": report.holders(row, c.number)}
        for c in report.rows[row].claims
    ]
    tests = [
        {
            "test": e.mark.test,
            "kind": e.mark.kind,
            "state": e.state,
            "why": e.why,
            "claims": list(e.mark.claims),
            "measured": [dict(m) for m in e.record.measured] if e.record else [],
            "commit": e.record.commit if e.record else None,
        }
        for e in report.evidence[row]
    ]
    return {"status": report.status[row], "claims": claims, "tests": tests}


def as_text(report: Report) -> str:
    """Counts per layer, the rows that work with their figures, then every row that does not yet."""
    lines = [f"{'layer':12} works total"]
    lines += [f"{layer:12} {c['works']:5} {c['total']:5}" for layer, c in report.layers().items()]
    works = [row for row, status in report.status.items() if status == "works"]
    lines += [f"{'all':12} {len(works):5} {len(report.rows):5}", ""]
    lines += [f"works: {row}{_figures(report, row)}" for row in works]
    for status in (s for s in STATUSES if s not in ("works", "missing")):
        for row in (r for r, s in report.status.items() if s == status):
            lines += ["", of_row(report, row)]
    for layer in LAYERS.values():
        missing = [r for r, s in report.status.items() if s == "missing" and report.rows[r].layer == layer]
        if missing:
            lines += ["", f"missing in {layer} ({len(missing)}): " + " ".join(missing)]
    return "\n".join(lines)


def of_row(report: Report, row: str) -> str:
    """One row whole: claims with who holds them, tests with their state and figures."""
    lines = [f"{report.status[row]}: {row} ({report.rows[row].form})"]
    for claim in report.rows[row].claims:
        names = dict.fromkeys(name.partition("[")[0] for name in report.holders(row, claim.number))
        held = ", ".join(name.rpartition("::")[2] for name in names)
        lines.append(f"  claim {claim.number}: {claim.text} [{held or 'held by no test'}]")
    for (kind, state, test, why), found in _grouped(report.evidence[row]).items():
        count = f" ({len(found)} cases)" if len(found) > 1 else ""
        figures = "".join(map(_measured, found))
        lines.append(f"  {kind:9} {state:10} {test}{count}{f': {why}' if why else ''}{figures}")
    return "\n".join(lines)


def _grouped(evidence: list[Evidence]) -> dict[tuple[str, str, str, str], list[Evidence]]:
    """The cases of one parametrized test together, as far as they are in the same state."""
    groups: dict[tuple[str, str, str, str], list[Evidence]] = {}
    for e in evidence:
        key = (e.mark.kind, e.state, e.mark.test.partition("[")[0], e.why)
        groups.setdefault(key, []).append(e)
    return groups


def _figures(report: Report, row: str) -> str:
    return "".join(_measured(e) for e in report.evidence[row] if e.mark.kind == "effect")


def _measured(e: Evidence) -> str:
    if e.record is None:
        return ""
    parts = []
    for m in e.record.measured:
        sign, bound = (">=", m["at_least"]) if "at_least" in m else ("<=", m["at_most"])
        unit = m.get("unit", "")
        parts.append(f"\n      {m['name']}: {m['value']:.4g}{unit} ({sign} {bound:g}{unit})")
    return "".join(parts)
