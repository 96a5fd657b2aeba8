"""Verdicts: what one member says about another's result."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pentad.agent.coordination.base import Report
from pentad.agent.coordination.reading import field, normal, without

Judgement = Literal["approved", "rejected", "unclear"]
_YES = re.compile(r"\b(correct|approved?|accept(?:ed)?|yes|right|valid)\b", re.IGNORECASE)
_NO = re.compile(r"\b(incorrect|not|isn'?t|reject(?:ed)?|wrong|no|error|false|invalid)\b", re.IGNORECASE)
ASKED = "End with one line, either `verdict: correct` or `verdict: wrong`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judgement with its reason."""

    judgement: Judgement
    reason: str = ""


def read_verdict(report: Report) -> Verdict:
    """What a member judged. A report without a readable verdict is unclear, never an approval.

    A `verdict:` line counts alone; without one, a single short line does.
    """
    if not report.ok:
        return Verdict(judgement="unclear", reason=report.text)
    line = field(report.text, "verdict")
    reason = without(report.text, ["verdict"])
    if not line and len(report.text.split()) <= 3:
        line, reason = report.text, ""
    # The first word that judges counts: "not correct" is a no, "correct, no error" a yes.
    no, yes = _NO.search(line), _YES.search(line)
    if no and (not yes or no.start() <= yes.start()):
        return Verdict(judgement="rejected", reason=reason)
    if yes:
        return Verdict(judgement="approved", reason=reason)
    return Verdict(judgement="unclear", reason=reason or "it gave no verdict")


def same_result(derived: Report, result: Report) -> Verdict:
    """The verdict of a member who came to a result of its own: whether it is the same."""
    if not derived.ok:
        return Verdict(judgement="unclear", reason=derived.text)
    if normal(derived.text) == normal(result.text):
        return Verdict(judgement="approved")
    return Verdict(judgement="rejected", reason=f"another member came to: {derived.text}")
