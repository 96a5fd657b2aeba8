"""Votes: what several members' answers come to, and how much they agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pentad.agent.coordination.base import Report
from pentad.agent.coordination.reading import normal


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The answer with the most votes; of equals the one that was given first."""

    answer: str
    """As a member of the majority worded it."""
    share: float
    """Of all weight, 0 to 1."""
    by_answer: Mapping[str, float]
    """The weight of each answer, in the form in which they were compared."""
    dissenters: tuple[str, ...]
    """Members who said something else."""


def vote(reports: Sequence[Report], weights: Mapping[str, float] | None = None) -> Vote | None:
    """What the members' answers come to; None where nobody answered.

    Args:
        reports: failed ones have no vote.
        weights: of members, at least 0; 1 where one is not named.
    """
    counted: dict[str, float] = defaultdict(float)
    said: dict[str, Report] = {}
    for report in reports:
        if report.ok:
            form = normal(report.text)
            counted[form] += (weights or {}).get(report.member, 1.0)
            said.setdefault(form, report)
    if not counted:
        return None
    first = max(counted, key=lambda form: counted[form])
    whole = sum(counted.values())
    return Vote(
        answer=said[first].text,
        share=counted[first] / whole if whole else 1 / len(counted),
        by_answer=dict(counted),
        dissenters=tuple(r.member for r in reports if r.ok and normal(r.text) != first),
    )


def told(reports: Sequence[Report], but: str = "") -> str:
    """What members said, for another member's prompt, each under its name."""
    return "\n\n".join(f"{r.member} said:\n{r.text}" for r in reports if r.ok and r.member != but)
