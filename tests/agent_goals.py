"""Thirty goals of three parts each, of three kinds, with what a right answer must say.

The first five of each kind are those to work with; the others are held back: look at how many of
them come out right, not at how.
"""

from __future__ import annotations

import json
import pathlib
import re
from dataclasses import dataclass

DATA = pathlib.Path(__file__).parent / "data"
DOCUMENTS = DATA / "agent_goal_documents"
HELD_BACK_FROM = 5
"""Of the ten of each kind."""


@dataclass(frozen=True)
class Goal:
    """One goal; `wanted` is a pattern for each part, all of which the answer must hold."""

    kind: str
    text: str
    wanted: tuple[str, ...]
    earlier: str | None = None
    """What the same agent is told in a run before this one."""

    def right(self, answer: str) -> bool:
        """Whether the answer has every part."""
        plain = re.sub(r"(?<=\d),(?=\d{3})", "", answer)
        return all(re.search(rf"(?<![\w.]){part}(?!\w|\.\d)", plain, re.IGNORECASE) for part in self.wanted)


def goals(held_back: bool | None = None) -> list[Goal]:
    """All thirty, or the fifteen that are held back, or the fifteen that are not."""
    found: dict[str, list[Goal]] = {}
    for line in (DATA / "agent_goals.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        goal = Goal(row["kind"], row["text"], tuple(row["wanted"]), row["earlier"])
        found.setdefault(goal.kind, []).append(goal)
    parts = {None: slice(None), True: slice(HELD_BACK_FROM, None), False: slice(HELD_BACK_FROM)}
    return [goal for kind in found.values() for goal in kind[parts[held_back]]]
