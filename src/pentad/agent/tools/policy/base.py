"""What the runtime asks of a tool policy (coverage.md, interface 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pentad.agent.state import RunState
from pentad.agent.tools.base import Tool
from pentad.model.relevance import Relevance
from pentad.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Offerable:
    """What a policy chooses from. It is folded from the journal, so a restart sees the same."""

    state: RunState
    tools: tuple[Tool, ...]
    """Those that may be called now, in the agent's order; rules and the planner have spoken already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The tools that the model sees, in order, and why the others are withheld."""

    tools: tuple[str, ...]
    why: str = ""
    """Why the others are withheld; said in the record, not to the model, which need not know of them."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of the tools that were scored."""
    constraint: str | None = None

    def decision(self, policy: str, among: Sequence[Tool], at_s: float) -> Decision:
        """The offer as it is recorded."""
        return Decision(
            layer="agent",
            policy=policy,
            subject="tools offered",
            chosen=", ".join(self.tools),
            candidates=tuple((tool.name, self.scores.get(tool.name)) for tool in among),
            constraint=self.constraint,
            at_s=at_s,
        )


class ToolPolicy(Protocol):
    """Chooses the tools of a step. Holds no state: equal input gets an equal offer."""

    @property
    def name(self) -> str: ...

    async def offer(self, seen: Offerable, relevance: Relevance) -> Offer:
        """The tools of this step; some of `seen.tools`, each once. Asked before each step.

        Args:
            relevance: scores texts against cues; its vectors are kept for all runs of the process.
        """
        ...
