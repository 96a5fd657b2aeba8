"""Figures: what each planner reached and spent by difficulty, for the planner that chooses among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from pentad.agent.evaluation.base import Case
from pentad.agent.evaluation.results import CaseResult
from pentad.agent.planning.difficulty import Difficulty, difficulty_of

Figures = Mapping[str, Mapping[Difficulty, tuple[float, float]]]
"""Planner, then difficulty: the share of successes, 0 to 1, and the mean tokens of a run."""


def figures(cases: Sequence[Case], results: Sequence[CaseResult]) -> Figures:
    """What `flexible` takes as `measured`, of one model. Levels that no case has are absent."""
    levels = {case.id: difficulty_of(case.goal) for case in cases}
    found: dict[str, dict[Difficulty, list[CaseResult]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        found[result.planner][levels[result.case]].append(result)
    return {
        planner: {
            level: (round(fmean(r.success for r in group), 3), round(fmean(r.tokens for r in group), 1))
            for level, group in by_level.items()
        }
        for planner, by_level in found.items()
    }
