"""Retrieve: of many tools the model sees the few that are nearest to the goal."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.agent.tools.policy.base import Offer, Offerable
from pentad.model.relevance import Relevance
from pentad.ranges import in_range

_CLAUSES = re.compile(r"[.?!;\n]+\s*|,?\s+and\s+|,\s+", re.IGNORECASE)
_LEAST_WORDS = 3
"""A part of a goal with fewer words is too little to look for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieve:
    """Offers the k tools nearest to the goal, and those that were used or that the plan names.

    A goal of several parts is looked up part by part, so that each finds its tool. Nearest first.
    With `k` tools or fewer all are offered and nothing is computed.

    Source: retrieval of tools by dialogue embedding, e.g. Kong et al. 2023, TPTU-v2, section 3.2
    (API retriever). Ours takes a general encoder untrained for it, or words where none is served.
    Exactness: lossy; the metric is how often the right tool is on offer. Cost: one embedding of each
    tool's text per process, and of each part of the goal per step that has not been looked up.
    """

    k: int = 5
    """Tools offered besides those that stay."""
    always: tuple[str, ...] = ()
    """Patterns of names (`files__*`) that are always offered."""

    name: ClassVar[str] = "retrieve"

    def __post_init__(self) -> None:
        in_range("k", self.k, least=1)

    async def offer(self, seen: Offerable, relevance: Relevance) -> Offer:
        """The nearest `k` and those that stay, nearest first; equals in the agent's order."""
        names = [tool.name for tool in seen.tools]
        if len(names) <= self.k:
            return Offer(tools=tuple(names))
        texts = [tool_text(tool) for tool in seen.tools]
        found = await self.scored(cues(seen.state), texts, relevance)
        scores = {name: round(score, 4) for name, score in zip(names, found, strict=True)}
        ranked = sorted(names, key=lambda name: -scores[name])
        staying = self._staying(seen.state)
        chosen = [
            name
            for place, name in enumerate(ranked)
            if place < self.k
            or name in staying
            or any(fnmatch.fnmatchcase(name, each) for each in self.always)
        ]
        return Offer(
            tools=tuple(chosen),
            why=f"not among the {self.k} nearest to the goal by {self.method(relevance)}",
            scores=scores,
            constraint=f"k {self.k}",
        )

    async def scored(
        self, looked_for: Sequence[str], texts: Sequence[str], relevance: Relevance
    ) -> list[float]:
        """How near each tool's text is to what is looked for, 0 to 1."""
        return await relevance.scores(looked_for, texts)

    def method(self, relevance: Relevance) -> str:
        """What scores come of, for the record."""
        return relevance.method

    def _staying(self, state: RunState) -> set[str]:
        used = {call.name for exchange in state.exchanges for call in exchange.calls}
        return used | {tool for tool, _ in state.plan or ()}


def cues(state: RunState) -> list[str]:
    """What to look for: the goal, its parts, and the tasks of the plan."""
    parts = [part for part in _CLAUSES.split(state.goal) if len(part.split()) >= _LEAST_WORDS]
    return list(dict.fromkeys([state.goal, *parts, *(task for _, task in state.plan or ())]))


def tool_text(tool: Tool) -> str:
    """What a tool is found by: its name as words, its description, its examples' tasks.

    Names of parameters are left out: most are of the kind `query`, and made the right tool harder to find.
    """
    words = re.sub(r"[_\W]+", " ", tool.name)
    return " ".join([f"{words}: {tool.description}", *(example.task for example in tool.examples)])
