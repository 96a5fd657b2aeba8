"""All: the model sees every tool that it may call."""

from __future__ import annotations

from dataclasses import dataclass

from pentad.agent.tools.policy.base import Offer, Offerable
from pentad.model.relevance import Relevance


@dataclass(frozen=True, slots=True, kw_only=True)
class All:
    """Offers every tool that may be called, in the agent's order.

    Cost: none of its own; the prompt has the schema of every tool.
    """

    name = "all"

    async def offer(self, seen: Offerable, relevance: Relevance) -> Offer:  # noqa: ARG002
        """All of them."""
        return Offer(tools=tuple(tool.name for tool in seen.tools))
